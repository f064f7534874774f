// SPDX-License-Identifier: Apache-2.0
// One crystal or molecule as a reader found it, and the checks that hold for every format. Lengths in Å.
//
//   Structure structure = *ReadPoscar(bytes, path);           // a reader: what the file says
//   STOKER_RETURN_IF_ERROR(CompleteStructure(place, &structure));   // fractional coordinates, finite, lattice
//   STOKER_RETURN_IF_ERROR(CheckAtoms(place, structure, &close));   // no two atoms on one spot
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace stoker::ingest {

inline constexpr uint64_t kMaxAtoms = 1 << 20;    // of one structure
inline constexpr double kSameSpot = 1e-3;         // atoms nearer than this are one atom written twice
inline constexpr double kCloseAtoms = 0.5;        // nearer than any bond
inline constexpr double kMinLatticeHeight = 0.1;  // between opposite faces of the cell
inline constexpr double kMaxCoordinate = 1e6;     // of atoms, and of the lattice

using Lattice = std::array<double, 9>;  // rows are the vectors a, b, c; all zero where there is none

struct Structure {
  std::string id;  // empty: the source has none
  Lattice lattice{};
  std::array<bool, 3> periodic{};       // along a, b, c
  std::vector<uint8_t> atomic_numbers;  // N, each 1..118
  std::vector<double> coords;           // [N, 3] as the source has them
  bool cartesian = false;               // whether coords are Å, else fractions of the lattice
  std::vector<double> frac_coords;      // [N, 3], not wrapped; a molecule has its Cartesian ones here
  std::vector<double> targets;          // NaN: the source says that there is none ("na", null, NaN)

  uint64_t atoms() const { return atomic_numbers.size(); }
  bool has_lattice() const { return lattice != Lattice{}; }
};

// A reader's way of handing over what it finds, in the order of the source: a structure, or why it is none. `number` is
// the place as the format counts: lines from 1, records from 0. An error from the sink ends the reading with it.
using StructureSink = absl::FunctionRef<absl::Status(uint64_t number, absl::StatusOr<Structure> structure)>;

// Volume with its sign: negative for a left-handed lattice, which is as good as any.
double Determinant(const Lattice& lattice);

// Of row vectors: fractions = coords @ InverseLattice. REQUIRES: Determinant(lattice) != 0.
Lattice InverseLattice(const Lattice& lattice);

// Distances between the opposite faces of the cell.
std::array<double, 3> LatticeHeights(const Lattice& lattice);

// row vector @ matrix.
std::array<double, 3> Transform(const double* row, const Lattice& matrix);

// Fills in frac_coords. InvalidArgument naming `place`: no atoms, too many, a number that is not finite or beyond
// kMaxCoordinate, a lattice without volume.
absl::Status CompleteStructure(absl::string_view place, Structure* structure);

// InvalidArgument naming `place` and the atoms, counted from 1, where two are on the same spot, periodic images
// included. `close` tells whether any are nearer than kCloseAtoms. O(atoms). REQUIRES: CompleteStructure.
absl::Status CheckAtoms(absl::string_view place, const Structure& structure, bool* close);

// The primitive cell by spglib (symprec 0.01), its atoms as fractions; id and targets stay. InvalidArgument naming
// `place` where there is no lattice in all three directions, or no symmetry is found. REQUIRES: CompleteStructure.
absl::Status ReducePrimitive(absl::string_view place, Structure* structure);

}  // namespace stoker::ingest
