// SPDX-License-Identifier: Apache-2.0
// The only structures inside a segment; shared/FORMAT.md draws them. Fixed-width little-endian integers and nothing
// that outlives its writer: no pointer, lock, count or allocator. Layout or meaning changes with kFormatVersion.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstring>

#include "absl/time/time.h"

namespace stoker::segment {

inline constexpr uint64_t kSegmentMagic = 0x4745534b4f545301;  // bytes 01 "STOKSEG"
inline constexpr uint64_t kExtentMagic = 0x545845434f545301;   // bytes 01 "STOCEXT"
inline constexpr uint32_t kFormatVersion = 1;
inline constexpr uint64_t kSegmentHeaderBytes = 4096;

// At offset 0, written once before the segment's name is told to anybody.
struct SegmentHeader {
  uint64_t magic;
  uint32_t format_version;
  uint32_t header_bytes;  // kSegmentHeaderBytes; extents begin here
  uint64_t size_bytes;    // of the whole segment
  uint64_t generation;
  char instance_id[16];  // hex digits of the daemon's instance id
};
static_assert(sizeof(SegmentHeader) == 48);

// The first 64 bytes of an extent. `sequence` is that of the batch whose bytes follow, or 0 while they are written.
// What the makers of a batch wrote before WriteSequence(n) is visible to who reads n from ReadSequence.
struct ExtentHeader {
  uint64_t magic;
  uint64_t sequence;
  uint64_t size_bytes;
  uint64_t epoch;
  uint64_t step;
  uint64_t reserved[3];  // zero
};
static_assert(sizeof(ExtentHeader) == 64);

// `sequence` is not 0: the batch is there, and who waits for it in AwaitSequence, in whatever process, goes on.
void SealExtent(uint8_t* extent, uint64_t sequence);

// Until the extent's sequence is not 0, or somebody calls WakeWaiters, or for `most`; may return sooner. The mapping
// may be read-only.
void AwaitSequence(const uint8_t* extent, absl::Duration most);
void WakeWaiters(const uint8_t* extent);

inline void WriteSequence(uint8_t* extent, uint64_t sequence) {
  auto* header = reinterpret_cast<ExtentHeader*>(extent);
  std::atomic_ref<uint64_t>(header->sequence).store(sequence, std::memory_order_release);
}

inline uint64_t ReadSequence(const uint8_t* extent) {
  const auto* header = reinterpret_cast<const ExtentHeader*>(extent);
  return __atomic_load_n(&header->sequence, __ATOMIC_ACQUIRE);  // std::atomic_ref<const T> comes with C++26
}

}  // namespace stoker::segment
