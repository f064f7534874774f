// SPDX-License-Identifier: Apache-2.0
// Elements written one after the other, past the caches. Included once for each instruction set.
#if defined(STOKER_LINE_STREAM_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef STOKER_LINE_STREAM_INL_H_
#undef STOKER_LINE_STREAM_INL_H_
#else
#define STOKER_LINE_STREAM_INL_H_
#endif

#include <algorithm>
#include <cstring>

#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "server/transforms/crystal_kernels.h"

HWY_BEFORE_NAMESPACE();
namespace stoker::transforms {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Elements at a time. Most runs are one step: what a step writes beyond its run is overwritten by the next.
constexpr size_t kStep = 16;
static_assert(kStep <= kRowPadding);
constexpr size_t kLineBytes = 64;  // of the cache

// Whole cache lines, past the caches.
template <typename T>
HWY_INLINE void StreamWhole(const T* from, size_t count, T* to) {
  const hn::ScalableTag<T> d;
  for (size_t i = 0; i < count; i += hn::Lanes(d)) hn::Stream(hn::Load(d, from + i), d, to + i);
}

// Writes the lines of `from`, whose first element is that of a cache line, to where `to` is in its line; the first
// `skip` elements are not ours. Whole lines go past the caches.
template <typename T>
HWY_NOINLINE void StreamLines(const T* from, size_t skip, size_t count, T* to) {
  constexpr size_t kLine = kLineBytes / sizeof(T);
  const size_t begin = skip > 0 ? std::min(kLine, count) : 0;
  const size_t end = std::max(begin, count / kLine * kLine);
  std::memcpy(to, from + skip, (std::max(begin, skip) - skip) * sizeof(T));
  StreamWhole(from + begin, end - begin, to + (begin - skip));
  std::memcpy(to + (end - skip), from + end, (count - end) * sizeof(T));
}

// What is written one element after the other, past the cache: a batch is larger than it, and read by another process,
// later. Elements are gathered in `room` [kRoom], which begins a cache line and is not part of this, so that the
// compiler keeps the rest in registers. The end of a chunk is a mispredicted branch: so they are long, but such that
// three rooms and the edges they are made of fit into the first cache.
template <typename T>
class LineStream {
 public:
  static constexpr size_t kChunk = 2048 / sizeof(T), kRoom = kChunk + kStep;

  // `count`: of all elements. The last of them share a line with what follows them: it comes to the cache meanwhile.
  HWY_INLINE LineStream(T* to, size_t count, T* room)
      : to_(to), room_(room), skip_(reinterpret_cast<uintptr_t>(to) % kLineBytes / sizeof(T)), end_(skip_) {
    if (to != nullptr) hwy::Prefetch(to + count);
  }

  // Where the next elements are put, at most kStep.
  HWY_INLINE T* At() const { return room_ + end_; }

  HWY_INLINE void Advance(size_t count) {
    end_ += count;
    if (end_ < kChunk) return;
    if (skip_ > 0) {
      StreamLines(room_, skip_, kChunk, to_);
    } else {
      StreamWhole(room_, kChunk, to_);
    }
    std::memcpy(room_, room_ + kChunk, kStep * sizeof(T));
    to_ += kChunk - skip_;
    end_ -= kChunk;
    skip_ = 0;
  }

  HWY_INLINE void Finish() const {
    if (end_ > skip_) StreamLines(room_, skip_, end_, to_);
  }

 private:
  T* to_;
  T* room_;
  size_t skip_;  // elements before ours in the first line
  size_t end_;
};

}  // namespace HWY_NAMESPACE
}  // namespace stoker::transforms
HWY_AFTER_NAMESPACE();
#endif
