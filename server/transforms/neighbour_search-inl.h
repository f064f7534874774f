// SPDX-License-Identifier: Apache-2.0
// The kernel of NeighbourSearch. Included once for each instruction set.
#if defined(STOKER_NEIGHBOUR_SEARCH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef STOKER_NEIGHBOUR_SEARCH_INL_H_
#undef STOKER_NEIGHBOUR_SEARCH_INL_H_
#else
#define STOKER_NEIGHBOUR_SEARCH_INL_H_
#endif

#include "hwy/highway.h"
#include "server/transforms/crystal_kernels.h"

HWY_BEFORE_NAMESPACE();
namespace stoker::transforms {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using DoubleTag = hn::ScalableTag<double>;
using KeyTag = hn::RebindToUnsigned<DoubleTag>;

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

}  // namespace HWY_NAMESPACE
}  // namespace stoker::transforms
HWY_AFTER_NAMESPACE();
#endif
