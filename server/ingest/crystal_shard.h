// SPDX-License-Identifier: Apache-2.0
// Gathers the structures of one unit with their graphs and writes them as a shard; shared/FORMAT.md has its tensors.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/ingest/sidecar.h"
#include "server/ingest/structure.h"
#include "server/ingest/unit.h"
#include "server/transforms/neighbours.h"
#include "shared/tensor/layout.h"

namespace stoker::ingest {

// The numbers of triplets of line graphs DGL, TORCH and M3GNET.
struct TripletCounts {
  int64_t dgl = 0;
  int64_t torch = 0;
  int64_t m3gnet = 0;
};
TripletCounts CountTriplets(const transforms::NeighbourList& edges);

class CrystalShard {
 public:
  // `unit` must outlive it. `sidecars`: one column for each sidecar of the options.
  CrystalShard(const Unit& unit, const std::vector<SidecarColumn>& sidecars, bool by_line);

  // `number` as messages count; `row` in the columns. InvalidArgument naming `place`: another number of targets than
  // before, more triplets than 32 bits count.
  absl::Status Add(const Structure& structure, const transforms::NeighbourList& edges, bool close, uint64_t number,
                   size_t row, absl::string_view place);

  // Left out, and counted under the first words of the reason.
  void Skip(absl::string_view reason, absl::string_view place);

  // Writes the shard and returns the summary as JSON.
  absl::StatusOr<std::string> Finish();

 private:
  absl::Status AddTargets(const Structure& structure, absl::string_view place);
  void AddEdges(const transforms::NeighbourList& edges, const TripletCounts& triplets);
  void AddSidecars(size_t row);
  std::vector<tensor::TensorSpec> Specs() const;

  const Unit& unit_;
  const std::vector<SidecarColumn>& columns_;
  UnitSummary summary_;
  std::vector<bool> elements_;  // by atomic number
  std::vector<int64_t> node_offset_{0}, edge_offset_{0}, id_offset_{0}, text_offset_{0}, source_line_, triplets_;
  std::vector<double> frac_coords_, lattice_, target_;
  std::vector<int32_t> edge_src_, edge_dst_, edge_image_, triplet_degree_;
  std::vector<float> edge_r_, edge_distance_;
  std::vector<uint8_t> atomic_number_;
  std::string id_bytes_, text_bytes_;
  std::vector<std::string> sidecars_;  // rows, by column; empty for text
};

}  // namespace stoker::ingest
