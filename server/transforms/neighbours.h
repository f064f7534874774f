// SPDX-License-Identifier: Apache-2.0
// The edges of a crystal's graph, by the rules of IngestOptions.Crystal.Graph. Lengths in Å.
//
// Distances are computed in float64 and compared as the float32 that is delivered: noise in the last bits of doubles
// does not tear shells of equal neighbours apart, and an edge is exactly as long as its reverse. d(i, 1) <= d(i, 2) <=
// … are the distances from atom i of all other atoms and images (its own images too).
//   KNN     i chooses all with d <= d(i, k) + tolerance. `directed`: an edge for each choice; else an edge for each
//   choice and
//           its reverse, each once (two images of i itself, R and -R, are two edges)
//   RADIUS  d <= cutoff; with max_neighbors m > 0 also d <= d(i, m) + tolerance
//   CGCNN   the k first with d <= cutoff, by distance, atom, image; then edges to atom 0 with distance cutoff + 1,
//   image 0 and
//           r = (cutoff + 1, 0, 0) until there are k (Xie and Grossman, arXiv:1710.10324, and its code)
//   ALIGNN  KNN by the arithmetic of alignn.graphs.nearest_neighbor_edges with use_canonize=True, and its edge multiset
//           (neighbours_alignn.h)
// All but ALIGNN search the wrapped coordinates, so the result is the same whatever cell the atoms are given in.
//
//   STOKER_ASSIGN_OR_RETURN(NeighbourFinder finder, NeighbourFinder::Create(options));
//   for (each structure) STOKER_ASSIGN_OR_RETURN(NeighbourList list, finder.Find(crystal));
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/transforms/crystal.h"
#include "stoker/v1/store.pb.h"

namespace stoker::transforms {

struct NeighbourOptions {
  using Graph = v1::IngestOptions::Crystal::Graph;

  Graph graph = v1::IngestOptions::Crystal::KNN;
  int64_t k = 12;             // [1, 1024]; not for RADIUS
  double tolerance = 1e-4;    // [0, 1]
  double cutoff = 8;          // (0, 100]; KNN does without
  int64_t max_neighbors = 0;  // RADIUS; 0: no limit
  double triplet_cutoff = 0;  // >= 0; 0: all edges have triplets
  bool directed = false;      // KNN

  // InvalidArgument naming the field ("ingest options: crystal.k: …").
  absl::Status Check() const;
};

// Edges sorted by source, distance, destination, image: those of atom i are [offset[i], offset[i + 1]). N atoms, E
// edges. The spans are good until the finder's next Find().
struct NeighbourList {
  absl::Span<const int64_t> offset;          // [N + 1]
  absl::Span<const int32_t> source;          // [E]
  absl::Span<const int32_t> destination;     // [E]
  absl::Span<const int32_t> image;           // [E, 3], of the destination, for the coordinates as given
  absl::Span<const float> r;                 // [E, 3] (fraction[destination] + image - fraction[source]) * lattice
  absl::Span<const float> distance;          // [E]
  absl::Span<const int32_t> triplet_degree;  // [N] edges no longer than triplet_cutoff: the first of each atom
  int64_t close_pairs = 0;                   // pairs of atoms nearer than 0.5 Å, as far as the search saw them

  int64_t edges() const { return static_cast<int64_t>(source.size()); }
};

// Instruction sets that this processor runs and this build has, best first; all give the same edges.
std::vector<std::string> CrystalPaths();

// Reused for many structures; allots nothing once it has seen the largest. One thread at a time; move-only.
class NeighbourFinder {
 public:
  // `path` is one of CrystalPaths(); empty picks the first. InvalidArgument by options.Check(); NotFound for the path.
  static absl::StatusOr<NeighbourFinder> Create(const NeighbourOptions& options, std::string_view path = "");

  NeighbourFinder(NeighbourFinder&&) noexcept;
  NeighbourFinder& operator=(NeighbourFinder&&) noexcept;
  ~NeighbourFinder();

  // InvalidArgument, to which the caller adds the structure's name: no atoms, coordinates or lattice that are not
  // finite, a periodic lattice without volume, atoms on the same spot (nearer than 1e-3 Å; the message counts atoms
  // from 1), more edges than 32 bits count, ALIGNN for what is not periodic in three directions. No neighbours at all
  // is no error.
  absl::StatusOr<NeighbourList> Find(const Crystal& crystal);

  const NeighbourOptions& options() const { return options_; }

 private:
  class Work;
  NeighbourFinder(const NeighbourOptions& options, std::unique_ptr<Work> work);

  NeighbourOptions options_;
  std::unique_ptr<Work> work_;
};

}  // namespace stoker::transforms
