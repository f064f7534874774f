// SPDX-License-Identifier: Apache-2.0
// What the graphs of a crystal are made from. Lengths in Å.
#pragma once

#include <array>
#include <cmath>

#include "absl/types/span.h"

namespace stoker::transforms {

using Vector3 = std::array<double, 3>;
using Matrix3 = std::array<Vector3, 3>;

// One structure; the coordinates are the caller's. Left-handed lattices are as good as others.
struct Crystal {
  Matrix3 lattice = {};               // rows are the lattice vectors; all zero for a molecule
  absl::Span<const double> fraction;  // [N, 3], not necessarily in [0, 1); of a molecule: Cartesian, Å
  std::array<bool, 3> periodic = {true, true, true};

  bool IsMolecule() const { return lattice == Matrix3{}; }
};

// v * m, for row vectors: (v0 m0 + v1 m1) + v2 m2. It is odd in v: -v gives exactly the opposite.
inline Vector3 TimesMatrix(const Vector3& v, const Matrix3& m) {
  Vector3 product;
  for (int k = 0; k < 3; ++k) product[k] = (v[0] * m[0][k] + v[1] * m[1][k]) + v[2] * m[2][k];
  return product;
}

inline Vector3 Cross(const Vector3& a, const Vector3& b) {
  return {a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]};
}

inline double Dot(const Vector3& a, const Vector3& b) { return (a[0] * b[0] + a[1] * b[1]) + a[2] * b[2]; }

inline double Length(const Vector3& v) { return std::sqrt(Dot(v, v)); }

}  // namespace stoker::transforms
