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
#include "server/transforms/float_rows-inl.h"
#include "server/transforms/line_stream-inl.h"

HWY_BEFORE_NAMESPACE();
namespace stoker::transforms {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Not lambdas in what follows: the compiler keeps what those capture in memory.
template <typename Index>
class IndexWriter {
 public:
  HWY_INLINE IndexWriter(const TripletColumns& to, int64_t offset, Index* first_room, Index* second_room)
      : first_(static_cast<Index*>(to.first), to.count, first_room),
        second_(static_cast<Index*>(to.second), to.count, second_room),
        offset_(offset),
        wanted_(to.first != nullptr) {}

  // Pairs of the edge with the `count` edges from `begin` on, at most kStep.
  HWY_INLINE void Step(int64_t edge, int64_t begin, size_t count) {
    if (!wanted_) return;
    const hn::ScalableTag<Index> d;
    const auto self = hn::Set(d, static_cast<Index>(edge + offset_));
    // Not Iota(d, partner), which is put together in memory.
    auto partner = hn::Add(hn::Set(d, static_cast<Index>(begin + offset_)), hn::Iota(d, 0));
    for (size_t i = 0; i < kStep; i += hn::Lanes(d)) {
      hn::StoreU(self, d, first_.At() + i);
      hn::StoreU(partner, d, second_.At() + i);
      partner = hn::Add(partner, hn::Set(d, static_cast<Index>(hn::Lanes(d))));
    }
    first_.Advance(count);
    second_.Advance(count);
  }

  HWY_INLINE void Finish() const {
    first_.Finish();
    second_.Finish();
  }

 private:
  LineStream<Index> first_, second_;
  const int64_t offset_;
  const bool wanted_;
};

// `As`: how they are rounded.
template <class As>
class CosineWriter {
 public:
  using Type = typename As::Type;

  HWY_INLINE CosineWriter(const TripletColumns& to, const Directions& directions, float sign, Type* room)
      : out_(static_cast<Type*>(to.cosines), to.count, room),
        directions_(directions),
        sign_(sign),
        wanted_(to.cosines != nullptr) {}

  HWY_INLINE void Step(int64_t edge, int64_t begin, size_t count) {
    if (!wanted_) return;
    const hn::ScalableTag<float> d;
    const auto x = hn::Set(d, sign_ * directions_.x[edge]), y = hn::Set(d, sign_ * directions_.y[edge]),
               z = hn::Set(d, sign_ * directions_.z[edge]);
    for (size_t i = 0; i < kStep; i += hn::Lanes(d)) {
      const size_t b = static_cast<size_t>(begin) + i;
      const auto xy = hn::Add(hn::Mul(x, hn::LoadU(d, directions_.x + b)), hn::Mul(y, hn::LoadU(d, directions_.y + b)));
      const auto cosine = hn::Add(xy, hn::Mul(z, hn::LoadU(d, directions_.z + b)));
      As::Store(hn::Min(hn::Max(cosine, hn::Set(d, -1.0f)), hn::Set(d, 1.0f)), out_.At() + i);
    }
    out_.Advance(count);
  }

  HWY_INLINE void Finish() const { out_.Finish(); }

 private:
  LineStream<Type> out_;
  const Directions directions_;
  const float sign_;
  const bool wanted_;
};

// All columns in one pass over the edges.
template <typename Index, class As>
void Triplets(const Partners& partners, const Directions& directions, float sign, int64_t offset,
              const TripletColumns& to) {
  alignas(kLineBytes) Index first_room[LineStream<Index>::kRoom];
  alignas(kLineBytes) Index second_room[LineStream<Index>::kRoom];
  alignas(kLineBytes) typename As::Type cosine_room[LineStream<typename As::Type>::kRoom];
  IndexWriter<Index> indices(to, offset, first_room, second_room);
  CosineWriter<As> cosines(to, directions, sign, cosine_room);
  const Partners of = partners;  // not in memory that is written to, for all the compiler knows
  for (size_t atom = 0; atom < of.atoms; ++atom) {
    const int64_t first = of.bucket[atom], last = first + of.degree[atom];
    for (int64_t edge = first; edge < last; ++edge) {
      const size_t middle = of.destination == nullptr ? atom : static_cast<size_t>(of.destination[edge]);
      const int64_t end = of.bucket[middle] + of.degree[middle];
      int64_t hole = of.without_itself && middle == atom ? edge : end;
      for (int64_t begin = of.bucket[middle]; begin < end;) {
        const int64_t count = std::min<int64_t>(kStep, hole - begin);
        indices.Step(edge, begin, static_cast<size_t>(count));
        cosines.Step(edge, begin, static_cast<size_t>(count));
        begin += count;
        if (begin == hole) ++begin, hole = end;
      }
    }
  }
  indices.Finish();
  cosines.Finish();
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

}  // namespace HWY_NAMESPACE
}  // namespace stoker::transforms
HWY_AFTER_NAMESPACE();
#endif
