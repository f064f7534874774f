// SPDX-License-Identifier: Apache-2.0
// Crystals made for tests.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "server/transforms/crystal.h"

namespace stoker::transforms {

// A crystal with its coordinates.
struct Made {
  std::string name;
  Matrix3 lattice = {};
  std::vector<double> fraction;
  std::array<bool, 3> periodic = {true, true, true};

  int64_t atoms() const { return static_cast<int64_t>(fraction.size() / 3); }
  Crystal view() const { return {lattice, fraction, periodic}; }
};

// Atoms on the places of a grid in the cell, each moved at random by less than what would bring two together.
inline Made Scattered(const std::string& name, const Matrix3& lattice, int64_t per_axis, int64_t atoms, uint32_t seed) {
  Made made{name, lattice, {}};
  std::mt19937 random(seed);
  std::uniform_real_distribution<double> move(-0.3, 0.3);
  for (int64_t i = 0; i < atoms; ++i) {
    for (const int64_t place : {i / (per_axis * per_axis) % per_axis, i / per_axis % per_axis, i % per_axis}) {
      made.fraction.push_back((static_cast<double>(place) + 0.5 + move(random)) / static_cast<double>(per_axis));
    }
  }
  return made;
}

// Cells of every kind: one atom, shells of equal neighbours, flat, skew, left-handed, large enough for a grid of
// blocks, a slab, a molecule.
inline std::vector<Made> Crystals() {
  const double a = 4.05, s = 0.5 * std::sqrt(3.0);
  std::vector<Made> all = {
      {"one atom, cubic", {{{3.2, 0, 0}, {0, 3.2, 0}, {0, 0, 3.2}}}, {0.25, 0.5, 0.75}},
      {"one atom, face-centred", {{{0, a / 2, a / 2}, {a / 2, 0, a / 2}, {a / 2, a / 2, 0}}}, {0, 0, 0}},
      {"rock salt", {{{0, 2.8, 2.8}, {2.8, 0, 2.8}, {2.8, 2.8, 0}}}, {0, 0, 0, 0.5, 0.5, 0.5}},
      {"hexagonal", {{{2.5, 0, 0}, {-1.25, 2.5 * s, 0}, {0, 0, 4.1}}}, {1. / 3, 2. / 3, 0.25, 2. / 3, 1. / 3, 0.75}},
      {"one atom, needle", {{{2.9, 0, 0}, {0, 2.7, 0}, {0, 0, 41}}}, {0.5, 0.5, 0.5}},
      Scattered("triclinic", {{{6.1, 0.3, -0.2}, {1.4, 5.7, 0.6}, {-0.9, 1.2, 7.3}}}, 2, 7, 1),
      Scattered("very skew", {{{4.6, 0, 0}, {11.3, 4.9, 0}, {-15.1, 9.7, 5.2}}}, 2, 5, 2),
      Scattered("left-handed", {{{5.9, 0.2, 0}, {0.4, 0.1, 6.3}, {-0.3, 5.5, 0.7}}}, 2, 8, 3),
      Scattered("blocks", {{{21, 0.5, 0}, {2, 23, 1}, {-1, 3, 19}}}, 7, 330, 4),
  };
  all.push_back(Scattered("slab", {{{6.3, 0.1, 0.4}, {-1.1, 6.6, 0.2}, {0.5, 0.3, 18}}}, 3, 20, 5));
  all.back().periodic = {true, true, false};
  all.push_back(
      {"molecule", {}, {0, 0, 0, 1.1, 0.1, 0, -0.3, 1.0, 0.2, -0.4, -0.5, 0.9, 2.3, 1.9, 0.7}, {false, false, false}});
  return all;
}

}  // namespace stoker::transforms
