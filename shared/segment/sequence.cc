// SPDX-License-Identifier: Apache-2.0
// Waiting for a batch without a message: futex(2) on the half of the sequence that changes with each batch. Not private
// to a process, since the waiters are others.
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <bit>
#include <climits>

#include "shared/segment/header.h"

namespace stoker::segment {
namespace {

static_assert(std::endian::native == std::endian::little);

const uint32_t* LowHalf(const uint8_t* extent) {
  return reinterpret_cast<const uint32_t*>(extent + offsetof(ExtentHeader, sequence));
}

}  // namespace

void SealExtent(uint8_t* extent, uint64_t sequence) {
  WriteSequence(extent, sequence);
  WakeWaiters(extent);
}

void WakeWaiters(const uint8_t* extent) {
  ::syscall(SYS_futex, LowHalf(extent), FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

// Of a sequence whose low half is 0 the caller hears after `most`: one in four billion.
void AwaitSequence(const uint8_t* extent, absl::Duration most) {
  if (ReadSequence(extent) != 0 || most <= absl::ZeroDuration()) return;
  const timespec timeout = absl::ToTimespec(most);
  ::syscall(SYS_futex, LowHalf(extent), FUTEX_WAIT, 0, &timeout, nullptr, 0);
}

}  // namespace stoker::segment
