// SPDX-License-Identifier: Apache-2.0
// The kernels of LineGraph. Included once for each instruction set.
#if defined(STOKER_LINE_GRAPH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef STOKER_LINE_GRAPH_INL_H_
#undef STOKER_LINE_GRAPH_INL_H_
#else
#define STOKER_LINE_GRAPH_INL_H_
#endif

#include <algorithm>
#include <cstring>

#include "hwy/highway.h"
#include "server/transforms/crystal_kernels.h"

HWY_BEFORE_NAMESPACE();
namespace stoker::transforms {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Triplets at a time. Most runs are one step: what a step writes beyond its run is overwritten by the next.
constexpr size_t kStep = 16;
static_assert(kStep <= kRowPadding);
constexpr size_t kLineBytes = 64;  // of the cache

// Writes the lines of `from`, whose first element is that of a cache line, to where `to` is in its line; the first
// `skip` elements are not ours. Whole lines go past the cache.
template <typename T>
HWY_NOINLINE void StreamLines(const T* from, size_t skip, size_t count, T* to) {
  const hn::ScalableTag<T> d;
  constexpr size_t kLine = kLineBytes / sizeof(T);
  size_t i = 0;
  if (skip > 0) {
    i = std::min(kLine, count);
    std::memcpy(to, from + skip, (i - skip) * sizeof(T));
  }
  for (; i + kLine <= count; i += kLine) {
    for (size_t lane = 0; lane < kLine; lane += hn::Lanes(d)) {
      hn::Stream(hn::Load(d, from + i + lane), d, to + (i + lane - skip));
    }
  }
  if (i < count) std::memcpy(to + (i - skip), from + i, (count - i) * sizeof(T));
}

// One element a triplet, run after run, past the cache: a batch is larger than it, and read by another process, later.
// `step(run, i, out)` writes kStep elements from the run's i-th on.
template <typename T, class Step>
HWY_INLINE void StreamRuns(const PartnerRun* runs, size_t run_count, T* to, const Step& step) {
  constexpr size_t kChunk = 1024 / sizeof(T);
  alignas(kLineBytes) T gathered[kChunk + 2 * kStep] = {};
  size_t skip = reinterpret_cast<uintptr_t>(to) % kLineBytes / sizeof(T), end = skip;
  for (size_t n = 0; n < run_count; ++n) {
    const PartnerRun run = runs[n];
    const auto count = static_cast<size_t>(run.count);
    for (size_t i = 0; i < count; i += kStep) {
      step(run, i, gathered + end);
      end += std::min(kStep, count - i);
      if (end < kChunk) continue;
      StreamLines(gathered, skip, kChunk, to);
      to += kChunk - skip;
      end -= kChunk;
      skip = 0;
      std::memcpy(gathered, gathered + kChunk, kStep * sizeof(T));
    }
  }
  StreamLines(gathered, skip, end, to);
}

template <typename Index>
void TripletIndex(const PartnerRun* runs, size_t run_count, int64_t offset, void* first, void* second) {
  const hn::ScalableTag<Index> d;
  StreamRuns(runs, run_count, static_cast<Index*>(first), [=](const PartnerRun& run, size_t, Index* out) HWY_ATTR {
    const auto edge = hn::Set(d, static_cast<Index>(run.edge + offset));
    for (size_t i = 0; i < kStep; i += hn::Lanes(d)) hn::StoreU(edge, d, out + i);
  });
  StreamRuns(runs, run_count, static_cast<Index*>(second),
             [=](const PartnerRun& run, size_t from, Index* out) HWY_ATTR {
               // Not Iota(d, partner), which is put together in memory.
               const auto begin = static_cast<Index>(run.begin + static_cast<int64_t>(from) + offset);
               auto partner = hn::Add(hn::Set(d, begin), hn::Iota(d, 0));
               for (size_t i = 0; i < kStep; i += hn::Lanes(d)) {
                 hn::StoreU(partner, d, out + i);
                 partner = hn::Add(partner, hn::Set(d, static_cast<Index>(hn::Lanes(d))));
               }
             });
}

inline void DirectionsOf(const float* r, size_t edges, float* x, float* y, float* z) {
  const hn::ScalableTag<float> d;
  const size_t lanes = hn::Lanes(d);
  HWY_ALIGN float rest[3 * hn::MaxLanes(d)] = {};
  for (size_t e = 0; e < edges; e += lanes) {
    const float* from = r + 3 * e;
    if (e + lanes > edges) {
      std::memcpy(rest, from, 3 * (edges - e) * sizeof(float));
      from = rest;
    }
    hn::Vec<decltype(d)> a, b, c;
    hn::LoadInterleaved3(d, from, a, b, c);
    const auto length = hn::Sqrt(hn::Add(hn::Add(hn::Mul(a, a), hn::Mul(b, b)), hn::Mul(c, c)));
    const auto scale = hn::IfThenElseZero(hn::Gt(length, hn::Zero(d)), hn::Div(hn::Set(d, 1.0f), length));
    hn::StoreU(hn::Mul(a, scale), d, x + e);
    hn::StoreU(hn::Mul(b, scale), d, y + e);
    hn::StoreU(hn::Mul(c, scale), d, z + e);
  }
}

inline void TripletCosine(const Directions& directions, const PartnerRun* runs, size_t run_count, size_t triplets,
                          float sign, float* cosines) {
  const hn::ScalableTag<float> d;
  const auto one = hn::Set(d, 1.0f), minus_one = hn::Set(d, -1.0f);
  const Directions to = directions;  // not in memory that `cosines` might be, for all the compiler knows
  const float* const end = cosines + triplets;
  for (size_t n = 0; n < run_count; ++n) {
    const PartnerRun run = runs[n];
    const auto count = static_cast<size_t>(run.count);
    const auto x = hn::Set(d, sign * to.x[run.edge]);
    const auto y = hn::Set(d, sign * to.y[run.edge]);
    const auto z = hn::Set(d, sign * to.z[run.edge]);
    const auto step = [&](size_t from, float* out) HWY_ATTR {
      for (size_t b = from; b < from + kStep; b += hn::Lanes(d)) {
        const auto xy = hn::Add(hn::Mul(x, hn::LoadU(d, to.x + b)), hn::Mul(y, hn::LoadU(d, to.y + b)));
        const auto cosine = hn::Add(xy, hn::Mul(z, hn::LoadU(d, to.z + b)));
        hn::StoreU(hn::Min(hn::Max(cosine, minus_one), one), d, out + (b - from));
      }
    };
    for (size_t i = 0; i < count; i += kStep) {
      if (end - (cosines + i) >= static_cast<ptrdiff_t>(kStep)) {
        step(run.begin + i, cosines + i);
      } else {
        float last[2 * kStep];  // twice the room: GCC warns of stores that it does not make
        step(run.begin + i, last);
        std::copy_n(last, std::min(kStep, count - i), cosines + i);
      }
    }
    cosines += count;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace stoker::transforms
HWY_AFTER_NAMESPACE();
#endif
