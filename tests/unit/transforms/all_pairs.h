// SPDX-License-Identifier: Apache-2.0
// Neighbours by trying every atom and image that can be near enough, in float64: what the search is compared with.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <vector>

#include "server/transforms/crystal.h"
#include "server/transforms/neighbours.h"

namespace stoker::transforms {

using Edge = std::array<int64_t, 5>;  // source, destination, image

struct Pair {
  double distance;
  Edge edge;
};

inline Edge Reversed(const Edge& e) { return {e[1], e[0], -e[2], -e[3], -e[4]}; }

// Of one atom up to `cutoff`, by distance.
inline std::vector<Pair> PairsOf(const Crystal& crystal, int64_t i, double cutoff) {
  const absl::Span<const double> f = crystal.fraction;
  const Matrix3& l = crystal.lattice;
  const double volume = std::abs(Dot(l[0], Cross(l[1], l[2])));
  std::array<int64_t, 3> reach = {};
  for (size_t k = 0; k < 3; ++k) {
    if (crystal.IsMolecule() || !crystal.periodic[k]) continue;
    double low = f[k], high = f[k];
    for (size_t c = k; c < f.size(); c += 3) low = std::min(low, f[c]), high = std::max(high, f[c]);
    const double height = volume / Length(Cross(l[(k + 1) % 3], l[(k + 2) % 3]));
    reach[k] = static_cast<int64_t>(std::ceil(cutoff / height + high - low)) + 1;
  }
  std::vector<Pair> pairs;
  for (int64_t j = 0; j < static_cast<int64_t>(f.size() / 3); ++j) {
    std::array<int64_t, 3> n;
    for (n[0] = -reach[0]; n[0] <= reach[0]; ++n[0]) {
      for (n[1] = -reach[1]; n[1] <= reach[1]; ++n[1]) {
        for (n[2] = -reach[2]; n[2] <= reach[2]; ++n[2]) {
          Vector3 d;
          for (size_t k = 0; k < 3; ++k) d[k] = f[3 * j + k] + static_cast<double>(n[k]) - f[3 * i + k];
          const double distance = Length(crystal.IsMolecule() ? d : TimesMatrix(d, l));
          if (distance > cutoff || (i == j && n == std::array<int64_t, 3>{})) continue;
          pairs.push_back({distance, {i, j, n[0], n[1], n[2]}});
        }
      }
    }
  }
  std::sort(pairs.begin(), pairs.end(), [](const Pair& a, const Pair& b) { return a.distance < b.distance; });
  return pairs;
}

inline Edge EdgeAt(const NeighbourList& list, int64_t e) {
  return {list.source[e], list.destination[e], list.image[3 * e], list.image[3 * e + 1], list.image[3 * e + 2]};
}

inline std::vector<Edge> SortedEdges(const NeighbourList& list) {
  std::vector<Edge> edges;
  for (int64_t e = 0; e < list.edges(); ++e) edges.push_back(EdgeAt(list, e));
  std::sort(edges.begin(), edges.end());
  return edges;
}

}  // namespace stoker::transforms
