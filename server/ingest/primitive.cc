// SPDX-License-Identifier: Apache-2.0
#include <spglib.h>

#include <memory>

#include "absl/strings/str_cat.h"
#include "server/ingest/structure.h"
#include "server/ingest/text.h"

namespace stoker::ingest {
namespace {

constexpr double kSymmetryPrecision = 0.01;

}  // namespace

absl::Status ReducePrimitive(absl::string_view place, Structure* structure) {
  if (!structure->periodic[0] || !structure->periodic[1] || !structure->periodic[2]) {
    return BadData(place, "no primitive cell: not periodic in all three directions", "leave --primitive out");
  }
  const size_t atoms = structure->atoms();
  double lattice[3][3];  // columns are the vectors
  for (size_t row = 0; row < 3; ++row) {
    for (size_t k = 0; k < 3; ++k) lattice[k][row] = structure->lattice[3 * row + k];
  }
  const auto positions = std::make_unique<double[][3]>(atoms);
  std::vector<int> types(structure->atomic_numbers.begin(), structure->atomic_numbers.end());
  for (size_t i = 0; i < 3 * atoms; ++i) positions[i / 3][i % 3] = structure->frac_coords[i];
  const int found =
      spg_find_primitive(lattice, positions.get(), types.data(), static_cast<int>(atoms), kSymmetryPrecision);
  if (found <= 0 || static_cast<size_t>(found) > atoms) {
    return BadData(place, "no primitive cell: spglib finds no symmetry", "leave --primitive out, or remove it");
  }
  for (size_t row = 0; row < 3; ++row) {
    for (size_t k = 0; k < 3; ++k) structure->lattice[3 * row + k] = lattice[k][row];
  }
  structure->atomic_numbers.assign(types.begin(), types.begin() + found);
  structure->cartesian = false;
  structure->coords.assign(positions[0], positions[0] + 3 * static_cast<size_t>(found));
  structure->frac_coords = structure->coords;
  return absl::OkStatus();
}

}  // namespace stoker::ingest
