// SPDX-License-Identifier: Apache-2.0
// All atoms, and images of atoms, within a radius of an atom. For NeighbourFinder.
//
// Atoms are wrapped into the cell, so that the result is complete whatever the coordinates are. A small cell is one
// block of atoms; in a large one the blocks are the boxes of a grid. What may be near an atom of a block (atoms of
// images of blocks, in a sphere around the block) is listed once for all atoms of the block. The kernels see no
// difference.
//
// A neighbour is a key of 64 bits: distance (float32 bits), number of the atom, image. Keys sort by distance, then
// atom, then image. The image in a key is that of the wrapped coordinates; Image() gives it relative to the coordinates
// as given.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/transforms/buffer.h"
#include "server/transforms/crystal.h"
#include "server/transforms/crystal_kernels.h"

namespace stoker::transforms {

using Image = std::array<int32_t, 3>;

class NeighbourSearch {
 public:
  explicit NeighbourSearch(const CrystalKernels* kernels) : kernels_(kernels) {}

  // Takes the structure in; what it points to may go afterwards. InvalidArgument: no atoms, sizes that do not agree,
  // numbers that are not finite or beyond 1e9, a periodic lattice without volume.
  absl::Status Begin(const Crystal& crystal);

  int64_t atoms() const { return atoms_; }
  // Upper bound of the distance of any two atoms where nothing is periodic; infinite otherwise.
  double diameter() const { return diameter_; }

  // What Collect() finds from now on: all within `radius` Å. Keys collected before stay good. InvalidArgument when the
  // radius reaches too many images.
  absl::Status SetRadius(double radius);

  // Atoms in the order in which asking for their neighbours is fastest.
  absl::Span<const int32_t> order() const { return order_.span(atoms_); }

  // A radius within which an atom mostly has k neighbours, by the mean density.
  double RadiusFor(int64_t k) const;

  // Writes the keys of the neighbours of `atom` to keys[at, …), sorted, without the atom itself, and returns their
  // number. Some may be farther than the radius by a rounding. InvalidArgument when there is an atom on the same spot.
  // REQUIRES: SetRadius() succeeded since Begin().
  absl::StatusOr<size_t> Collect(int32_t atom, Buffer<uint64_t>& keys, size_t at);

  // How many of these, the neighbours of one atom, are nearer than kClose Å.
  static constexpr double kClose = 0.5;
  static int64_t CountClose(absl::Span<const uint64_t> keys);

  static float Distance(uint64_t key) { return std::bit_cast<float>(static_cast<uint32_t>(key >> 32)); }
  // image_bits_ may be 32.
  int32_t Atom(uint64_t key) const { return static_cast<int32_t>((key & 0xffffffff) >> image_bits_); }
  // Of the neighbour, relative to `source`, for the coordinates as given.
  Image ImageOf(int32_t source, uint64_t key) const;
  // Writes the edges from `source` of these keys; r is exactly the opposite of that of the way back.
  void ListEdges(int32_t source, absl::Span<const uint64_t> keys, const EdgeColumns& out) const;
  // The key of `source` among the neighbours of Atom(key).
  uint64_t Reversed(int32_t source, uint64_t key) const;

 private:
  struct Axis {
    int64_t bins;     // of the grid along this axis
    int64_t reach;    // bins to either side that are to be tried
    double origin;    // fraction where bin 0 begins
    double width;     // of a bin, in fractions
    double height;    // distance of the planes at fractions 0 and 1, Å
    double span;      // greatest less least fraction of the atoms
    int shift, bits;  // place of the image in a key
  };
  struct Block {
    int64_t begin;  // in x_, y_, z_
    int64_t count;
    Vector3 centre;
    double radius;
  };
  struct Step {  // to a bin along an axis
    int64_t bin;
    uint64_t code;  // of its image along the axis, as in a key
    Vector3 shift;  // Å
  };

  absl::Status ReadAtoms(const Crystal& crystal);
  absl::Status ReadLattice(const Crystal& crystal);
  Vector3 Point(int64_t atom) const { return {points_[3 * atom], points_[3 * atom + 1], points_[3 * atom + 2]}; }
  int64_t ReachOf(const Axis& axis, double radius) const;
  void ChooseGrid(double radius);
  double Work(double width, double radius, std::array<int64_t, 3>* bins) const;
  void FillBlocks();
  void AddBlock(int64_t block, absl::Span<const int32_t> members, int64_t begin);
  absl::Status PlaceImages(double radius);
  static int64_t ZeroOf(const Axis& axis);  // what a key holds for image 0
  uint64_t Code(const Image& image) const;
  Image Wrapped(uint64_t key) const;
  absl::Status SameSpot(int32_t atom, uint64_t* keys, size_t count) const;
  void AimFrom(int64_t block);
  void ListSteps(int a, int64_t bin);
  void ListNear(const Block& from);
  void Sort(const uint64_t* found, size_t count, uint64_t* sorted);

  const CrystalKernels* kernels_;
  int64_t atoms_ = 0;
  Matrix3 lattice_ = {};  // of the molecule: the unit matrix
  std::array<bool, 3> periodic_ = {};
  double volume_ = 0;  // Å^3, of the cell or of the box around a molecule
  double diameter_ = 0;
  double radius_ = 0;
  std::array<Axis, 3> axes_ = {};
  int image_bits_ = -1;      // of a key; -1: not placed yet
  Buffer<double> fraction_;  // [N, 3], wrapped
  Buffer<int32_t> wraps_;    // [N, 3]: coordinates as given less the wrapped ones
  bool wrapped_ = false;     // whether any of them is not 0
  Buffer<double> points_;    // [N, 3] Å, of the wrapped

  // Atoms by block, each block padded to kBlockPadding.
  Buffer<double> x_, y_, z_;
  Buffer<uint64_t> ids_;
  Buffer<int32_t> order_;     // atoms by block
  Buffer<int32_t> block_of_;  // by atom
  Buffer<Block> blocks_;
  int64_t block_count_ = 0;
  Buffer<int64_t> fill_;  // scratch

  int64_t aimed_from_ = -1;  // the block that near_* are for
  std::array<std::vector<Step>, 3> steps_;
  std::vector<SearchImage> images_;
  Buffer<double> near_x_, near_y_, near_z_, near_shift_x_, near_shift_y_, near_shift_z_;
  Buffer<uint64_t> near_id_;
  NearAtoms near_ = {};
  size_t near_count_ = 0;

  Buffer<uint64_t> unsorted_, shells_;
  Buffer<uint32_t> shell_, shell_place_, shell_end_;
};

}  // namespace stoker::transforms
