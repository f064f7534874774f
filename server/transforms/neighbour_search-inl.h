// SPDX-License-Identifier: Apache-2.0
// The kernels of NeighbourSearch. Included once for each instruction set.
#if defined(STOKER_NEIGHBOUR_SEARCH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef STOKER_NEIGHBOUR_SEARCH_INL_H_
#undef STOKER_NEIGHBOUR_SEARCH_INL_H_
#else
#define STOKER_NEIGHBOUR_SEARCH_INL_H_
#endif

#include <cstring>

#include "hwy/highway.h"
#include "server/transforms/crystal_kernels.h"

HWY_BEFORE_NAMESPACE();
namespace stoker::transforms {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using DoubleTag = hn::ScalableTag<double>;
using KeyTag = hn::RebindToUnsigned<DoubleTag>;
using WholeTag = hn::Rebind<int32_t, DoubleTag>;

// The bits of sqrt(d2) as float32, in the upper halves.
HWY_INLINE hn::Vec<KeyTag> DistanceBits(hn::Vec<DoubleTag> d2) {
  const hn::Rebind<float, DoubleTag> floats;
  const hn::Rebind<uint32_t, DoubleTag> words;
  const auto distance = hn::DemoteTo(floats, hn::Sqrt(d2));
  return hn::ShiftLeft<32>(hn::PromoteTo(KeyTag(), hn::BitCast(words, distance)));
}

HWY_INLINE size_t CollectTarget(const SearchAtoms& atoms, const SearchTarget& target, const double* point,
                                double limit2, uint64_t* keys) {
  const DoubleTag d;
  const KeyTag k;
  const auto px = hn::Set(d, point[0]), py = hn::Set(d, point[1]), pz = hn::Set(d, point[2]);
  const auto tx = hn::Set(d, target.shift[0]), ty = hn::Set(d, target.shift[1]), tz = hn::Set(d, target.shift[2]);
  const auto limit = hn::Set(d, limit2);
  const auto code = hn::Set(k, target.code);
  size_t written = 0;
  for (int64_t j = target.begin; j < target.begin + target.count; j += hn::Lanes(d)) {
    const auto dx = hn::Add(hn::Sub(hn::Load(d, atoms.x + j), px), tx);
    const auto dy = hn::Add(hn::Sub(hn::Load(d, atoms.y + j), py), ty);
    const auto dz = hn::Add(hn::Sub(hn::Load(d, atoms.z + j), pz), tz);
    const auto d2 = hn::Add(hn::Add(hn::Mul(dx, dx), hn::Mul(dy, dy)), hn::Mul(dz, dz));
    const auto near = hn::Le(d2, limit);
    if (hn::AllFalse(d, near)) continue;
    const auto key = hn::Or(DistanceBits(d2), hn::Or(hn::Load(k, atoms.id + j), code));
    written += hn::CompressStore(key, hn::RebindMask(k, near), k, keys + written);
  }
  return written;
}

inline size_t Collect(const SearchAtoms& atoms, const SearchTarget* targets, size_t target_count, const double* point,
                      double limit2, uint64_t* keys) {
  size_t written = 0;
  for (const SearchTarget* target = targets; target != targets + target_count; ++target) {
    const double x = target->centre[0] - point[0], y = target->centre[1] - point[1], z = target->centre[2] - point[2];
    if (x * x + y * y + z * z > target->reach2) continue;
    written += CollectTarget(atoms, *target, point, limit2, keys + written);
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

// The image along axis `a`, as integers.
HWY_INLINE hn::Vec<WholeTag> ImageAlong(const KeyImage& code, hn::Vec<KeyTag> key, int a) {
  const WholeTag wholes;
  const hn::RebindToUnsigned<WholeTag> words;
  const auto field = hn::TruncateTo(words, hn::ShiftRightSame(key, code.shift[a]));
  const auto masked = hn::BitCast(wholes, hn::And(field, hn::Set(words, code.mask[a])));
  return hn::Sub(masked, hn::Set(wholes, code.zero[a]));
}

HWY_INLINE void ListVector(const KeyImage& code, const double* points, const double* lattice, const double* point,
                           hn::Vec<KeyTag> key, size_t at, const EdgeColumns& out) {
  const DoubleTag d;
  const WholeTag wholes;
  const hn::Rebind<float, DoubleTag> floats;
  const hn::RebindToSigned<DoubleTag> indices;
  const hn::RebindToUnsigned<WholeTag> words;
  const auto low = hn::And(key, hn::Set(KeyTag(), 0xffffffffu));
  const auto atom = hn::ShiftRightSame(low, code.atom_shift);
  hn::StoreU(hn::BitCast(wholes, hn::TruncateTo(words, atom)), wholes, out.destination + at);
  hn::StoreU(hn::BitCast(floats, hn::TruncateTo(words, hn::ShiftRight<32>(key))), floats, out.distance + at);
  const auto n0 = ImageAlong(code, key, 0), n1 = ImageAlong(code, key, 1), n2 = ImageAlong(code, key, 2);
  hn::StoreInterleaved3(n0, n1, n2, wholes, out.image + 3 * at);
  const auto a = hn::PromoteTo(d, n0), b = hn::PromoteTo(d, n1), c = hn::PromoteTo(d, n2);
  const auto row = hn::BitCast(indices, hn::Add(hn::Add(atom, atom), atom));
  const auto along = [&](int k) HWY_ATTR {
    const auto ab = hn::Add(hn::Mul(a, hn::Set(d, lattice[k])), hn::Mul(b, hn::Set(d, lattice[3 + k])));
    const auto shift = hn::Add(ab, hn::Mul(c, hn::Set(d, lattice[6 + k])));
    const auto to = hn::GatherIndex(d, points + k, row);
    return hn::DemoteTo(floats, hn::Add(hn::Sub(to, hn::Set(d, point[k])), shift));
  };
  hn::StoreInterleaved3(along(0), along(1), along(2), floats, out.r + 3 * at);
}

inline void ListEdges(const KeyImage& code, const double* points, const double* lattice, const double* point,
                      const uint64_t* keys, size_t count, const EdgeColumns& out) {
  const KeyTag k;
  const size_t lanes = hn::Lanes(k);
  size_t at = 0;
  for (; at + lanes <= count; at += lanes) ListVector(code, points, lattice, point, hn::LoadU(k, keys + at), at, out);
  if (at == count) return;
  HWY_ALIGN uint64_t rest[hn::MaxLanes(k)] = {};  // atom 0, which is there
  std::memcpy(rest, keys + at, (count - at) * sizeof(uint64_t));
  ListVector(code, points, lattice, point, hn::Load(k, rest), at, out);
}

}  // namespace HWY_NAMESPACE
}  // namespace stoker::transforms
HWY_AFTER_NAMESPACE();
#endif
