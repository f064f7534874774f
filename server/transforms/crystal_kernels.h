// SPDX-License-Identifier: Apache-2.0
// The inner loops of NeighbourFinder, LineGraph and the float rows, one set for each instruction set. All sets give the
// same bytes: products and sums are rounded one by one. Not for others.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "stoker/v1/recipe.pb.h"

namespace stoker::transforms {

// Elements that a kernel may write beyond the ones it was asked for, and by which the arrays that it reads are padded.
inline constexpr int64_t kRowPadding = 16;
// Doubles of the widest vector; blocks of atoms begin at multiples of it and are filled up to one with atoms that are
// infinitely far away.
inline constexpr int64_t kBlockPadding = 8;

// Atoms in the order of their blocks, Cartesian, Å.
struct SearchAtoms {
  const double* x;
  const double* y;
  const double* z;
  const uint64_t* id;  // number of the atom, shifted to its place in a key
};

// One periodic image of one block of atoms.
struct SearchTarget {
  double shift[3];   // of the image, Å
  double centre[3];  // of a sphere around the image's atoms
  double reach2;     // square of the radius of that sphere plus the radius searched
  uint64_t code;     // of the image
  int64_t begin;     // atoms [begin, begin + count)
  int64_t count;
};

// For each atom of the targets at d = |(atom - point) + shift| with d^2 <= limit2 one key: the bits of d rounded to
// float32 in the upper half, id + code in the lower. `keys` has room for all atoms of the targets and kBlockPadding
// more. Returns how many it wrote. A pair of atoms has the same distance from either end.
using CollectKernel = size_t (*)(const SearchAtoms& atoms, const SearchTarget* targets, size_t target_count,
                                 const double* point, double limit2, uint64_t* keys);

// Edges [begin, begin + count) are the partners of edge a.
struct PartnerRun {
  int32_t edge;
  int32_t begin;
  int32_t count;
};

// Directions of edges, rounded to float32; each array has kRowPadding more elements.
struct Directions {
  const float* x;
  const float* y;
  const float* z;
};

// One element a triplet, run after run: edge + offset to `first`, the partner + offset to `second` (i32 or i64).
using TripletIndexKernel = void (*)(const PartnerRun* runs, size_t run_count, int64_t offset, void* first,
                                    void* second);
// One element a triplet: sign * (direction of the edge . direction of the partner), clamped to [-1, 1].
using TripletCosineKernel = void (*)(const Directions& directions, const PartnerRun* runs, size_t run_count, float sign,
                                     float* cosines);

// float32 to f32, f16 or bf16, rounded to nearest even.
using RoundKernel = void (*)(const float* from, size_t count, void* to);
// out[k] = exp(-gamma (distance - centres[k])^2), each operation rounded to float32. `centres` is padded.
using RbfKernel = void (*)(float distance, const float* centres, size_t count, float gamma, float* out);

struct CrystalKernels {
  std::string_view name;
  CollectKernel collect;
  TripletIndexKernel triplet_index_i32;
  TripletIndexKernel triplet_index_i64;
  TripletCosineKernel triplet_cosine;
  RoundKernel round[3];  // by DType from F32: f32, f16, bf16
  RbfKernel rbf;
};

// Those that this processor can run, best first, the portable one last.
std::vector<const CrystalKernels*> SupportedCrystalKernels();

// Those named, or the first when the name is empty; null when this machine has none of that name.
const CrystalKernels* FindCrystalKernels(std::string_view name);

}  // namespace stoker::transforms
