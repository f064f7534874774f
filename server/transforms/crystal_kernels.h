// SPDX-License-Identifier: Apache-2.0
// The inner loops of NeighbourFinder, LineGraph and the float rows, one set for each instruction set. All sets give the
// same bytes: products and sums are rounded one by one. Not for others.
#pragma once

#include <bit>
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
  double* x;
  double* y;
  double* z;
  uint64_t* id;  // number of the atom, shifted to its place in a key
};

// One periodic image of the atoms [begin, begin + count), a block.
struct SearchImage {
  double shift[3];  // of the image, Å
  uint64_t code;    // of the image, as in a key
  int64_t begin;
  int64_t count;
};

// Atoms of images that may be neighbours. x, y, z are of the atom itself, `shift` [3] of its image. Each array has room
// for kBlockPadding more.
struct NearAtoms {
  double* x;
  double* y;
  double* z;
  double* shift[3];
  uint64_t* id;  // with the image's code
};

// Adds to `near`, from `at` on, the atoms of the image that are in the sphere, and returns how many. `atoms` are
// padded.
using AddNearKernel = size_t (*)(const SearchAtoms& atoms, const SearchImage& image, const double* centre,
                                 double radius2, const NearAtoms& near, size_t at);

// For each of the atoms at d = |(atom - point) + shift| with d^2 <= limit2 one key: the bits of d rounded to float32 in
// the upper half, the id in the lower. `near` is filled up to kBlockPadding with atoms that are infinitely far away;
// `keys` has room for all of them and kBlockPadding more. Returns how many it wrote. A pair of atoms has the same
// distance from either end.
using CollectKernel = size_t (*)(const NearAtoms& near, size_t count, const double* point, double limit2,
                                 uint64_t* keys);

// Sorts `count` keys, all different and below 2^63, from `keys` to `sorted`, and leaves the least out. O(count^2), the
// fastest up to about 64. `keys` has room for 2 kBlockPadding more.
using SortFewKernel = void (*)(const uint64_t* keys, size_t count, uint64_t* sorted);

// What SortMany works in.
struct SortScratch {
  uint32_t* bucket;  // [count + kBlockPadding]
  uint32_t* place;   // [count], in its bucket
  uint32_t* end;     // [SortBuckets(count) + 1]
  uint64_t* keys;    // [count + kBlockPadding]
};

// The same for distances up to `limit` that are about as frequent as in a homogeneous sphere: keys are shared out to
// shells of equal volume, and the place of a key in its shell is the number of keys there that are less.
using SortManyKernel = void (*)(const uint64_t* keys, size_t count, float limit, const SortScratch& scratch,
                                uint64_t* sorted);
inline size_t SortBuckets(size_t count) { return std::bit_floor(count); }

// How a key holds the image along each axis: (key >> shift & mask) - zero.
struct KeyImage {
  int shift[3];
  uint32_t mask[3];
  int32_t zero[3];
  int atom_shift;  // of the number of the atom, from bit 0 of the lower half; 0 to 32
};

// Where edges are written; each array has room for kRowPadding more.
struct EdgeColumns {
  int32_t* destination;
  int32_t* image;  // [E, 3]
  float* r;        // [E, 3]
  float* distance;
};

// The edge of each key, from the atom at `point`: r = (atom - point) + image * lattice, rounded once; exactly opposite
// for the key of the way back. `points` [atoms, 3] and `lattice` [3, 3] are Å.
using ListEdgesKernel = void (*)(const KeyImage& code, const double* points, const double* lattice, const double* point,
                                 const uint64_t* keys, size_t count, const EdgeColumns& out);

// Which edges are partners: edges [bucket[i], bucket[i + 1]) are those of atom i, the first degree[i] of them have
// triplets. Partners of an edge are those of its destination, or of its own atom where `destination` is null.
struct Partners {
  const int64_t* bucket;
  const int32_t* degree;
  const int32_t* destination;
  size_t atoms;
  bool without_itself;  // no edge is its own partner
};

// Directions of edges, rounded to float32; each array has kRowPadding more elements.
struct Directions {
  const float* x;
  const float* y;
  const float* z;
};

// From r [edges, 3] to x, y, z, of length 1, or 0 where r is.
using DirectionsKernel = void (*)(const float* r, size_t edges, float* x, float* y, float* z);

// Where `count` triplets are written, one element each; null for what is not asked for.
struct TripletColumns {
  void* first;    // i32 or i64
  void* second;   // null when `first` is
  void* cosines;  // f32, f16 or bf16
  size_t count;   // that of all partners
};

// The triplets by edge, then by partner: edge + offset to `first`, the partner + offset to `second`; sign * (direction
// of the edge . direction of the partner), clamped to [-1, 1], to `cosines`. Written past the caches:
// hwy::FlushStream() before another thread is told. Nothing is written beyond.
using TripletKernel = void (*)(const Partners& partners, const Directions& directions, float sign, int64_t offset,
                               const TripletColumns& out);

// from + offset, to i32 or i64. Written past the caches; nothing is written beyond `count`.
using OffsetKernel = void (*)(const int32_t* from, size_t count, int64_t offset, void* to);

// float32 to f32, f16 or bf16, rounded to nearest even; NaN stays NaN. Written past the caches; nothing is written
// beyond `count`.
using RoundKernel = void (*)(const float* from, size_t count, void* to);
// out[k] = exp(-gamma (distance - centres[k])^2), each operation rounded to float32, the exponential within 2 units of
// the last place, or 0 below 2^-126. `centres` is padded. REQUIRES: gamma >= 0, finite numbers.
using RbfKernel = void (*)(float distance, const float* centres, size_t count, float gamma, float* out);

struct CrystalKernels {
  std::string_view name;
  AddNearKernel add_near;
  CollectKernel collect;
  SortFewKernel sort_few;
  SortManyKernel sort_many;
  ListEdgesKernel list_edges;
  DirectionsKernel directions;
  TripletKernel triplets_i32[3], triplets_i64[3];  // cosines f32, f16, bf16
  OffsetKernel offset_i32, offset_i64;
  RoundKernel round[3];  // f32, f16, bf16
  RbfKernel rbf;

  TripletKernel TripletsTo(v1::DType index, v1::DType real) const {
    return (index == v1::DTYPE_I32 ? triplets_i32 : triplets_i64)[PlaceOf(real)];
  }
  RoundKernel RoundTo(v1::DType dtype) const { return round[PlaceOf(dtype)]; }

 private:
  static size_t PlaceOf(v1::DType real) { return real == v1::DTYPE_F16 ? 1 : real == v1::DTYPE_BF16 ? 2 : 0; }
};

// Those that this processor can run, best first, the portable one last.
std::vector<const CrystalKernels*> SupportedCrystalKernels();

// Those named, or the first when the name is empty; null when this machine has none of that name.
const CrystalKernels* FindCrystalKernels(std::string_view name);

}  // namespace stoker::transforms
