// SPDX-License-Identifier: Apache-2.0
// The kernels of NeighbourSearch. Included once for each instruction set.
#if defined(STOKER_NEIGHBOUR_SEARCH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef STOKER_NEIGHBOUR_SEARCH_INL_H_
#undef STOKER_NEIGHBOUR_SEARCH_INL_H_
#else
#define STOKER_NEIGHBOUR_SEARCH_INL_H_
#endif

#include <algorithm>
#include <cstring>
#include <limits>

#include "hwy/highway.h"
#include "server/transforms/crystal_kernels.h"

HWY_BEFORE_NAMESPACE();
namespace stoker::transforms {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using DoubleTag = hn::ScalableTag<double>;
using KeyTag = hn::RebindToUnsigned<DoubleTag>;
using WholeTag = hn::Rebind<int32_t, DoubleTag>;

// Writes the lanes of `mask` to `to`, one after the other, and anything in the rest of a vector's room; returns their
// number.
template <class D, class V = hn::Vec<D>>
HWY_INLINE size_t StoreChosen(D d, V lanes, hn::Mask<D> mask, hn::TFromD<D>* to) {
#if HWY_TARGET == HWY_AVX2
  // CompressStore of Highway 1.0 copies its table to the stack each time.
  alignas(32) static constexpr uint32_t kHalves[16][8] = {
      {0, 1, 2, 3, 4, 5, 6, 7}, {0, 1, 2, 3, 4, 5, 6, 7}, {2, 3, 0, 1, 4, 5, 6, 7}, {0, 1, 2, 3, 4, 5, 6, 7},
      {4, 5, 0, 1, 2, 3, 6, 7}, {0, 1, 4, 5, 2, 3, 6, 7}, {2, 3, 4, 5, 0, 1, 6, 7}, {0, 1, 2, 3, 4, 5, 6, 7},
      {6, 7, 0, 1, 2, 3, 4, 5}, {0, 1, 6, 7, 2, 3, 4, 5}, {2, 3, 6, 7, 0, 1, 4, 5}, {0, 1, 2, 3, 6, 7, 4, 5},
      {4, 5, 6, 7, 0, 1, 2, 3}, {0, 1, 4, 5, 6, 7, 2, 3}, {2, 3, 4, 5, 6, 7, 0, 1}, {0, 1, 2, 3, 4, 5, 6, 7}};
  const hn::Repartition<uint32_t, D> halves;
  uint8_t bits[8];
  hn::StoreMaskBits(d, mask, bits);
  const auto order = hn::SetTableIndices(halves, kHalves[bits[0]]);
  hn::StoreU(hn::BitCast(d, hn::TableLookupLanes(hn::BitCast(halves, lanes), order)), d, to);
  return hn::CountTrue(d, mask);
#else
  return hn::CompressStore(lanes, mask, d, to);
#endif
}

// The bits of sqrt(d2) as float32, in the upper halves.
HWY_INLINE hn::Vec<KeyTag> DistanceBits(hn::Vec<DoubleTag> d2) {
  const hn::Rebind<float, DoubleTag> floats;
  const hn::Rebind<uint32_t, DoubleTag> words;
  const auto distance = hn::DemoteTo(floats, hn::Sqrt(d2));
  return hn::ShiftLeft<32>(hn::PromoteTo(KeyTag(), hn::BitCast(words, distance)));
}

inline size_t AddNear(const SearchAtoms& atoms, const SearchImage& image, const double* centre, double radius2,
                      const NearAtoms& near, size_t at) {
  const DoubleTag d;
  const KeyTag k;
  const auto sx = hn::Set(d, image.shift[0]), sy = hn::Set(d, image.shift[1]), sz = hn::Set(d, image.shift[2]);
  const auto cx = hn::Set(d, centre[0] - image.shift[0]), cy = hn::Set(d, centre[1] - image.shift[1]),
             cz = hn::Set(d, centre[2] - image.shift[2]);
  const auto limit = hn::Set(d, radius2);
  const auto code = hn::Set(k, image.code);
  const size_t begin = at;
  for (int64_t j = image.begin; j < image.begin + image.count; j += hn::Lanes(d)) {
    const auto x = hn::Load(d, atoms.x + j), y = hn::Load(d, atoms.y + j), z = hn::Load(d, atoms.z + j);
    const auto dx = hn::Sub(x, cx), dy = hn::Sub(y, cy), dz = hn::Sub(z, cz);
    const auto d2 = hn::Add(hn::Add(hn::Mul(dx, dx), hn::Mul(dy, dy)), hn::Mul(dz, dz));
    const auto inside = hn::Le(d2, limit);
    if (hn::AllFalse(d, inside)) continue;
    hn::StoreU(sx, d, near.shift[0] + at);
    hn::StoreU(sy, d, near.shift[1] + at);
    hn::StoreU(sz, d, near.shift[2] + at);
    StoreChosen(d, x, inside, near.x + at);
    StoreChosen(d, y, inside, near.y + at);
    StoreChosen(d, z, inside, near.z + at);
    at += StoreChosen(k, hn::Or(hn::Load(k, atoms.id + j), code), hn::RebindMask(k, inside), near.id + at);
  }
  return at - begin;
}

inline size_t Collect(const NearAtoms& atoms, size_t count, const double* point, double limit2, uint64_t* keys) {
  const DoubleTag d;
  const KeyTag k;
  const auto px = hn::Set(d, point[0]), py = hn::Set(d, point[1]), pz = hn::Set(d, point[2]);
  const auto limit = hn::Set(d, limit2);
  const NearAtoms near = atoms;  // not in memory that `keys` might be, for all the compiler knows
  size_t written = 0;
  for (size_t j = 0; j < count; j += hn::Lanes(d)) {
    const auto dx = hn::Add(hn::Sub(hn::Load(d, near.x + j), px), hn::Load(d, near.shift[0] + j));
    const auto dy = hn::Add(hn::Sub(hn::Load(d, near.y + j), py), hn::Load(d, near.shift[1] + j));
    const auto dz = hn::Add(hn::Sub(hn::Load(d, near.z + j), pz), hn::Load(d, near.shift[2] + j));
    const auto d2 = hn::Add(hn::Add(hn::Mul(dx, dx), hn::Mul(dy, dy)), hn::Mul(dz, dz));
    const auto inside = hn::Le(d2, limit);
    if (hn::AllFalse(d, inside)) continue;
    const auto key = hn::Or(DistanceBits(d2), hn::Load(k, near.id + j));
    written += StoreChosen(k, key, hn::RebindMask(k, inside), keys + written);
  }
  return written;
}

// The place of a key is the number of keys that are less.
inline void SortFew(const uint64_t* keys, size_t count, uint64_t* sorted) {
  const hn::RebindToSigned<KeyTag> d;
  const auto* const from = reinterpret_cast<const int64_t*>(keys);
  const size_t lanes = hn::Lanes(d);
  HWY_ALIGN int64_t places[2 * hn::MaxLanes(d)];
  for (size_t i = 0; i < count; i += 2 * lanes) {
    const auto a = hn::LoadU(d, from + i), b = hn::LoadU(d, from + i + lanes);
    auto below_a = hn::Set(d, -1), below_b = below_a;
    for (size_t j = 0; j < count; ++j) {
      const auto other = hn::Set(d, from[j]);
      below_a = hn::Sub(below_a, hn::VecFromMask(d, hn::Lt(other, a)));
      below_b = hn::Sub(below_b, hn::VecFromMask(d, hn::Lt(other, b)));
    }
    hn::Store(below_a, d, places);
    hn::Store(below_b, d, places + lanes);
    for (size_t l = 0; l < 2 * lanes && i + l < count; ++l) {
      if (places[l] >= 0) sorted[places[l]] = keys[i + l];
    }
  }
}

inline void SortMany(const uint64_t* keys, size_t count, float limit, const SortScratch& memory, uint64_t* sorted) {
  const SortScratch scratch = memory;
  const KeyTag k;
  const hn::Rebind<uint32_t, KeyTag> words;
  const hn::Rebind<float, KeyTag> floats;
  const hn::RebindToSigned<KeyTag> d;
  const size_t buckets = SortBuckets(count);
  const auto per_volume = hn::Set(floats, static_cast<float>(buckets) / (limit * limit * limit));
  const auto last = hn::Set(floats, static_cast<float>(buckets - 1));
  const uint32_t* const begin = scratch.end;
  uint32_t* const end = scratch.end + 1;  // of each bucket; first the number of its keys
  std::memset(scratch.end, 0, (buckets + 1) * sizeof(uint32_t));
  for (size_t i = 0; i < count; i += hn::Lanes(k)) {
    const auto distance = hn::BitCast(floats, hn::TruncateTo(words, hn::ShiftRight<32>(hn::LoadU(k, keys + i))));
    const auto cubed = hn::Mul(hn::Mul(distance, distance), distance);
    const auto bucket = hn::ConvertTo(WholeTag(), hn::Min(hn::Mul(cubed, per_volume), last));
    hn::StoreU(hn::BitCast(words, bucket), words, scratch.bucket + i);
  }
  for (size_t i = 0; i < count; ++i) scratch.place[i] = end[scratch.bucket[i]]++;
  for (size_t b = 1; b < buckets; ++b) end[b] += end[b - 1];
  for (size_t i = 0; i < count; ++i) scratch.keys[begin[scratch.bucket[i]] + scratch.place[i]] = keys[i];
  // No key is greater: what is beyond the last bucket does not count.
  std::fill_n(scratch.keys + count, hn::Lanes(k), std::numeric_limits<int64_t>::max());
  const auto* const shared_out = reinterpret_cast<const int64_t*>(scratch.keys);
  for (size_t i = 0; i < count; ++i) {
    const auto key = hn::Set(d, static_cast<int64_t>(keys[i]));
    size_t place = begin[scratch.bucket[i]];
    for (size_t j = place; j < end[scratch.bucket[i]]; j += hn::Lanes(d)) {
      place += hn::CountTrue(d, hn::Lt(hn::LoadU(d, shared_out + j), key));
    }
    if (place > 0) sorted[place - 1] = keys[i];
  }
}

// Edges at a time, for which positions are laid out first: gathers are slow on many processors.
constexpr size_t kEdgeGroup = 32;

struct EdgeGroup {
  HWY_ALIGN double to[3][kEdgeGroup];
  HWY_ALIGN uint64_t keys[kEdgeGroup];
};

// Of the group's first `count` edges, to `at` in `out`.
HWY_INLINE void ListGroup(const KeyImage& code, const double* lattice, const double* point, const EdgeGroup& group,
                          size_t count, size_t at, const EdgeColumns& out) {
  const DoubleTag d;
  const WholeTag wholes;
  const hn::Rebind<float, DoubleTag> floats;
  const hn::RebindToUnsigned<WholeTag> words;
  const auto image_along = [&](hn::Vec<KeyTag> key, int a) HWY_ATTR {
    const auto field = hn::TruncateTo(words, hn::ShiftRightSame(key, code.shift[a]));
    const auto masked = hn::BitCast(wholes, hn::And(field, hn::Set(words, code.mask[a])));
    return hn::Sub(masked, hn::Set(wholes, code.zero[a]));
  };
  for (size_t i = 0; i < count; i += hn::Lanes(d)) {
    const auto key = hn::Load(KeyTag(), group.keys + i);
    hn::StoreU(hn::BitCast(floats, hn::TruncateTo(words, hn::ShiftRight<32>(key))), floats, out.distance + at + i);
    const auto n0 = image_along(key, 0), n1 = image_along(key, 1), n2 = image_along(key, 2);
    hn::StoreInterleaved3(n0, n1, n2, wholes, out.image + 3 * (at + i));
    const auto a = hn::PromoteTo(d, n0), b = hn::PromoteTo(d, n1), c = hn::PromoteTo(d, n2);
    const auto along = [&](int k) HWY_ATTR {
      const auto ab = hn::Add(hn::Mul(a, hn::Set(d, lattice[k])), hn::Mul(b, hn::Set(d, lattice[3 + k])));
      const auto shift = hn::Add(ab, hn::Mul(c, hn::Set(d, lattice[6 + k])));
      return hn::DemoteTo(floats, hn::Add(hn::Sub(hn::Load(d, group.to[k] + i), hn::Set(d, point[k])), shift));
    };
    hn::StoreInterleaved3(along(0), along(1), along(2), floats, out.r + 3 * (at + i));
  }
}

inline void ListEdges(const KeyImage& code, const double* points, const double* lattice, const double* point,
                      const uint64_t* keys, size_t count, const EdgeColumns& out) {
  // Copies, which the compiler knows to be apart from what is written.
  const KeyImage fields = code;
  double rows[9], from[3];
  std::copy_n(lattice, 9, rows);
  std::copy_n(point, 3, from);
  const EdgeColumns columns = out;
  EdgeGroup group;
  for (size_t at = 0; at < count; at += kEdgeGroup) {
    const size_t in_group = std::min(kEdgeGroup, count - at);
    for (size_t i = 0; i < in_group; ++i) {
      const uint64_t atom = (keys[at + i] & 0xffffffffu) >> fields.atom_shift;
      columns.destination[at + i] = static_cast<int32_t>(atom);
      group.keys[i] = keys[at + i];
      for (size_t k = 0; k < 3; ++k) group.to[k][i] = points[3 * atom + k];
    }
    for (size_t i = in_group; i % hn::Lanes(DoubleTag()) != 0; ++i) {
      group.keys[i] = 0;
      for (auto& to : group.to) to[i] = 0;
    }
    ListGroup(fields, rows, from, group, in_group, at, columns);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace stoker::transforms
HWY_AFTER_NAMESPACE();
#endif
