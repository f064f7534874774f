// SPDX-License-Identifier: Apache-2.0
#include "server/ingest/structure.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/ingest/element.h"
#include "server/ingest/text.h"
#include "shared/base/status_macros.h"

namespace stoker::ingest {
namespace {

using Vector = std::array<double, 3>;

Vector Cross(const double* a, const double* b) {
  return {a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]};
}

double Length(const Vector& v) { return std::sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]); }

bool InRange(double value) { return std::abs(value) <= kMaxCoordinate; }  // false for NaN

absl::Status CheckLattice(absl::string_view place, const Structure& structure) {
  const Lattice& lattice = structure.lattice;
  if (!std::all_of(lattice.begin(), lattice.end(), InRange)) {
    return BadData(place, "lattice out of range: not finite, or beyond 1e6 Å", "correct the lattice vectors");
  }
  const bool periodic = structure.periodic[0] || structure.periodic[1] || structure.periodic[2];
  if (!structure.has_lattice()) {
    return periodic ? BadData(place, "no lattice: periodic, and all lattice vectors are zero", "give the lattice")
                    : absl::OkStatus();
  }
  const Vector heights = LatticeHeights(lattice);
  const double lowest = *std::min_element(heights.begin(), heights.end());
  if (lowest >= kMinLatticeHeight) return absl::OkStatus();
  return BadData(place,
                 absl::StrFormat("singular lattice: its volume is %g Å³, and opposite faces are %g Å apart",
                                 std::abs(Determinant(lattice)), std::isnan(lowest) ? 0 : lowest),
                 "correct the lattice vectors; an axis that is not periodic needs a length too");
}

struct Pair {
  size_t first, second;
  double distance;
};

// Finds two atoms nearer than a radius, periodic images included, by cubes of that size. Points are added until the
// first pair is found, so no cube ever holds many.
class CloseSearch {
 public:
  CloseSearch(const Structure& structure, double radius) : structure_(structure), radius_(radius) {
    if (structure.has_lattice()) heights_ = LatticeHeights(structure.lattice);
    for (size_t i = 0; i < structure.atoms() && !found_.has_value(); ++i) AddAtom(i);
  }

  const std::optional<Pair>& found() const { return found_; }

 private:
  using Key = std::array<int64_t, 3>;
  static constexpr size_t kNone = SIZE_MAX;
  struct Point {
    Vector at;
    size_t atom;
    size_t before;  // in the same cube
  };

  Key KeyOf(const Vector& at) const {
    return {static_cast<int64_t>(std::floor(at[0] / radius_)), static_cast<int64_t>(std::floor(at[1] / radius_)),
            static_cast<int64_t>(std::floor(at[2] / radius_))};
  }

  // The atom in the cell, and its images within the radius of the cell's faces.
  void AddAtom(size_t atom) {
    Vector wrapped;
    int64_t low[3] = {}, high[3] = {};
    for (size_t k = 0; k < 3; ++k) {
      wrapped[k] = structure_.frac_coords[3 * atom + k];
      if (!structure_.periodic[k]) continue;
      wrapped[k] -= std::floor(wrapped[k]);
      const double margin = radius_ / heights_[k];
      low[k] = static_cast<int64_t>(std::ceil(-margin - wrapped[k]));
      high[k] = static_cast<int64_t>(std::floor(1 + margin - wrapped[k]));
    }
    for (int64_t a = low[0]; a <= high[0]; ++a) {
      for (int64_t b = low[1]; b <= high[1]; ++b) {
        for (int64_t c = low[2]; c <= high[2] && !found_.has_value(); ++c) {
          const Vector image = {wrapped[0] + static_cast<double>(a), wrapped[1] + static_cast<double>(b),
                                wrapped[2] + static_cast<double>(c)};
          AddPoint(structure_.has_lattice() ? Transform(image.data(), structure_.lattice) : image, atom);
        }
      }
    }
  }

  void AddPoint(const Vector& at, size_t atom) {
    const Key own = KeyOf(at);
    for (int64_t cube = 0; cube < 27; ++cube) {
      const Key key = {own[0] + cube / 9 - 1, own[1] + cube / 3 % 3 - 1, own[2] + cube % 3 - 1};
      const auto last = last_.find(key);
      for (size_t j = last == last_.end() ? kNone : last->second; j != kNone; j = points_[j].before) {
        const Vector& other = points_[j].at;
        const double distance = Length({at[0] - other[0], at[1] - other[1], at[2] - other[2]});
        if (distance < radius_) found_ = {points_[j].atom, atom, distance};
      }
    }
    const auto [place, added] = last_.try_emplace(own, points_.size());
    points_.push_back({at, atom, added ? kNone : place->second});
    place->second = points_.size() - 1;
  }

  const Structure& structure_;
  const double radius_;
  Vector heights_{};
  std::vector<Point> points_;
  absl::flat_hash_map<Key, size_t> last_;  // point of each cube that was added last
  std::optional<Pair> found_;
};

}  // namespace

double Determinant(const Lattice& m) {
  const Vector bc = Cross(&m[3], &m[6]);
  return m[0] * bc[0] + m[1] * bc[1] + m[2] * bc[2];
}

Lattice InverseLattice(const Lattice& m) {
  const double volume = Determinant(m);
  const Vector bc = Cross(&m[3], &m[6]), ca = Cross(&m[6], &m[0]), ab = Cross(&m[0], &m[3]);
  Lattice inverse;
  for (size_t k = 0; k < 3; ++k) {
    inverse[3 * k] = bc[k] / volume;
    inverse[3 * k + 1] = ca[k] / volume;
    inverse[3 * k + 2] = ab[k] / volume;
  }
  return inverse;
}

std::array<double, 3> LatticeHeights(const Lattice& m) {
  const double volume = std::abs(Determinant(m));
  return {volume / Length(Cross(&m[3], &m[6])), volume / Length(Cross(&m[6], &m[0])),
          volume / Length(Cross(&m[0], &m[3]))};
}

std::array<double, 3> Transform(const double* row, const Lattice& m) {
  return {row[0] * m[0] + row[1] * m[3] + row[2] * m[6], row[0] * m[1] + row[1] * m[4] + row[2] * m[7],
          row[0] * m[2] + row[1] * m[5] + row[2] * m[8]};
}

absl::Status CompleteStructure(absl::string_view place, Structure* structure) {
  if (structure->atoms() == 0) return BadData(place, "no atoms", "remove the structure");
  if (structure->atoms() > kMaxAtoms) {
    return BadData(place, absl::StrCat("too many atoms: ", structure->atoms(), ", at most ", kMaxAtoms),
                   "remove the structure");
  }
  STOKER_RETURN_IF_ERROR(CheckLattice(place, *structure));
  const auto wrong = std::find_if_not(structure->coords.begin(), structure->coords.end(), InRange);
  if (wrong != structure->coords.end()) {
    return BadData(
        place,
        absl::StrFormat("coordinate out of range: %g of atom %d", *wrong, (wrong - structure->coords.begin()) / 3 + 1),
        "correct the coordinates");
  }
  structure->frac_coords = structure->coords;
  if (!structure->cartesian || !structure->has_lattice()) return absl::OkStatus();
  const Lattice inverse = InverseLattice(structure->lattice);
  for (size_t i = 0; i < structure->atoms(); ++i) {
    const Vector fraction = Transform(&structure->coords[3 * i], inverse);
    std::copy(fraction.begin(), fraction.end(), structure->frac_coords.begin() + static_cast<ptrdiff_t>(3 * i));
  }
  return absl::OkStatus();
}

absl::Status CheckAtoms(absl::string_view place, const Structure& structure, bool* close) {
  if (const std::optional<Pair> pair = CloseSearch(structure, kSameSpot).found()) {
    return BadData(place,
                   absl::StrFormat("atoms on the same spot: %d (%s) and %d (%s) are %.2g Å apart", pair->first + 1,
                                   ElementSymbol(structure.atomic_numbers[pair->first]), pair->second + 1,
                                   ElementSymbol(structure.atomic_numbers[pair->second]), pair->distance),
                   "remove one of them");
  }
  *close = CloseSearch(structure, kCloseAtoms).found().has_value();
  return absl::OkStatus();
}

}  // namespace stoker::ingest
