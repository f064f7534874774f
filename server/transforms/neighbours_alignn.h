// SPDX-License-Identifier: Apache-2.0
// The edges of alignn.graphs.nearest_neighbor_edges(use_canonize=True) and build_undirected_edgedata of ALIGNN 2026.8
// with jarvis-tools 2026.6, by their own arithmetic. For NeighbourFinder.
//
// What differs from the rule KNN:
//   - atoms lie at fraction * L5, where L5 is the lattice rounded to 5 decimals, and images at shifts of the lattice
//   that is
//     not rounded, so equal neighbours are up to about 1e-6 Å apart; an atom chooses all with d <= d(k), by exact
//     comparison of float64
//   - coordinates are not wrapped: images are those of a half-open box that is wide enough only when coordinates
//   straddle
//     [0, 1); atoms nearer than 0.15 Å are not seen
//   - when an atom has fewer than k within the cutoff, the cutoff of all becomes the longest cell edge, or else its
//   double
//   - an edge to an image of the atom itself is there once for each of R and -R that the atom chose, with its reverse:
//   twice
// numpy's products may be fused in BLAS, so where a shell is cut among equal distances ALIGNN's own answer depends on
// the machine; this is the answer without fused products.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/transforms/buffer.h"
#include "server/transforms/crystal.h"
#include "server/transforms/neighbour_search.h"

namespace stoker::transforms {

struct AlignnEdge {
  int32_t source;
  int32_t destination;
  Image image;  // of the destination, for the coordinates as given
  float distance;
  Vector3 r;  // (fraction[destination] + image - fraction[source]) * L5
};

class AlignnNeighbours {
 public:
  // Edges sorted by source, distance, destination, image; good until the next Find(). `search` has begun the crystal.
  // InvalidArgument when the crystal is not periodic in three directions, and as NeighbourSearch.
  absl::StatusOr<absl::Span<const AlignnEdge>> Find(const Crystal& crystal, int64_t k, double cutoff,
                                                    NeighbourSearch& search);
  int64_t close_pairs() const { return close_ / 2; }

 private:
  struct Candidate {
    double distance;
    Image image;
    int32_t atom;
    auto operator<=>(const Candidate&) const = default;
  };
  struct Pair {  // low <= high
    int32_t low, high;
    Image image;  // of high
    auto operator<=>(const Pair&) const = default;
  };

  struct Place {
    uint64_t place;  // source, then distance
    uint32_t edge;   // of edges_
  };

  absl::Status Read(const Crystal& crystal);
  void SetBox(double cutoff);
  // Whether every atom has k neighbours within `radius`; then pairs_ has those it chooses.
  absl::StatusOr<bool> Choose(const Crystal& crystal, size_t k, double radius, NeighbourSearch& search);
  absl::Status ReadCandidates(int32_t atom, double radius, NeighbourSearch& search);
  void AddPairs(int32_t atom, size_t k);
  void SortPairs(size_t atoms);  // into sorted_pairs_, each once
  void ListEdges(const Crystal& crystal);

  Matrix3 lattice_ = {};                // not rounded
  Matrix3 rounded_ = {};                // L5
  Vector3 reciprocal_ = {};             // lengths of the reciprocal vectors, with 2 pi, rounded as jarvis does
  double longest_ = 0;                  // cell edge, Å
  Vector3 low_ = {}, high_ = {};        // of the coordinates as given
  double margin_ = 0;                   // Å by which distances here may differ from those of the search
  Image box_low_ = {}, box_high_ = {};  // images in [low, high)
  int64_t close_ = 0;

  Buffer<double> points_;  // [N, 3]
  Buffer<uint64_t> keys_;
  std::vector<Candidate> candidates_;
  std::vector<Pair> pairs_, sorted_pairs_;
  std::vector<size_t> first_;  // of SortPairs: by atom
  std::vector<AlignnEdge> edges_, sorted_edges_;
  std::vector<Place> order_;
};

}  // namespace stoker::transforms
