// SPDX-License-Identifier: Apache-2.0
// A store of kind CRYSTALS, open for reading: sample index -> structure, edges and what goes with them, where they lie
// in the mapped shards. shared/FORMAT.md has the tensors.
//
//   auto store = CrystalStore::Open(dir);
//   CrystalView view = *(*store)->Sample(7);
//   for (size_t e = 0; e < view.edges(); ++e) { view.edge_destination[e]; view.edge_r[3 * e]; }
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "shared/store/manifest.h"
#include "shared/store/safetensors.h"
#include "stoker/v1/store.pb.h"

namespace stoker::store {

// One structure of N atoms and E edges, valid as long as its store. Edges are sorted by source, distance, destination
// and image; lengths in Å. Spans are of the sizes given, the elements as the file has them: whoever indexes by them
// checks first.
struct CrystalView {
  absl::Span<const uint8_t> atomic_number;     // [N]
  absl::Span<const double> frac_coords;        // [N, 3]
  absl::Span<const double> lattice;            // [3, 3], rows; zeros for a molecule
  absl::Span<const int32_t> edge_source;       // [E]
  absl::Span<const int32_t> edge_destination;  // [E]
  absl::Span<const int32_t> edge_image;        // [E, 3] of the destination
  absl::Span<const float> edge_r;              // [E, 3] from source to destination
  absl::Span<const float> edge_distance;       // [E]
  absl::Span<const int32_t> triplet_degree;    // [N] edges of the atom that have triplets: its first ones
  absl::Span<const double> target;             // [K]
  absl::string_view id;
  absl::string_view text;
  std::vector<absl::Span<const uint8_t>> sidecars;  // bytes of one sample, in the order of sidecars()

  size_t atoms() const { return atomic_number.size(); }
  size_t edges() const { return edge_source.size(); }
};

// Const and immutable: any thread may call anything.
class CrystalStore {
 public:
  // Maps all shards. NotFound when there is no store; FailedPrecondition for a store of another version or kind
  // (remedy: ingest again); DataLoss when manifest and shards disagree.
  static absl::StatusOr<std::shared_ptr<const CrystalStore>> Open(const std::string& store_dir);

  const v1::StoreManifest& manifest() const { return manifest_; }
  uint64_t samples() const { return manifest_.samples(); }

  // O(log shards). OutOfRange for index >= samples(); DataLoss when offsets in the shard are not sound.
  absl::StatusOr<CrystalView> Sample(uint64_t index) const;

  // For messages: "JVASP-1002 (/data/si.vasp:1)", "/data/dft.json: record 17". Never fails: an index that is not there
  // gives "sample <index>".
  std::string SampleName(uint64_t index) const;

  // Of every sample, in their order: what a plan by budget needs, without touching a shard. None is negative.
  absl::Span<const int32_t> nodes() const { return nodes_; }
  absl::Span<const int32_t> edges() const { return edges_; }
  absl::Span<const int32_t> triplets() const { return triplets_; }  // [samples, 3] of line graphs DGL, TORCH, M3GNET
  absl::Span<const int32_t> text_bytes() const { return text_bytes_; }

  // Row z is of atomic number z; empty where the data set has no table.
  absl::Span<const float> atom_features() const { return features_; }  // [rows, F]
  uint64_t atom_feature_width() const { return manifest_.crystals().atom_feature_width(); }

  struct Sidecar {
    std::string name;
    v1::DType dtype;
    std::vector<int64_t> shape;  // of one sample
    uint64_t bytes = 0;          // of one sample
  };
  const std::vector<Sidecar>& sidecars() const { return sidecars_; }  // arrays; text is not among them
  bool has_text() const { return has_text_; }

 private:
  struct Shard {
    explicit Shard(SafetensorsFile f) : file(std::move(f)) {}
    SafetensorsFile file;
    std::string source;
    bool by_line = true;  // source_line counts lines, else records
    int64_t first_line = 0;
    uint64_t samples = 0;
    absl::Span<const int64_t> node_offset, edge_offset, id_offset, text_offset, source_line;
    absl::Span<const uint8_t> atomic_number, id_bytes, text_bytes;
    absl::Span<const double> frac_coords, lattice, target;
    absl::Span<const int32_t> edge_source, edge_destination, edge_image, triplet_degree;
    absl::Span<const float> edge_r, edge_distance;
    std::vector<absl::Span<const uint8_t>> sidecars;
  };

  CrystalStore() = default;
  absl::Status OpenCosts(const std::string& store_dir);
  absl::Status OpenFeatures(const std::string& store_dir);
  absl::Status DescribeSidecars();
  absl::StatusOr<std::unique_ptr<Shard>> OpenShard(const std::string& dir, const v1::ShardInfo& info) const;
  absl::Status OpenSidecars(Shard* shard) const;
  absl::Status CheckSizes(const Shard& shard) const;
  const Shard* Locate(uint64_t index, uint64_t* local) const;

  v1::StoreManifest manifest_;
  std::vector<std::unique_ptr<Shard>> shards_;
  std::vector<uint64_t> shard_begin_;    // first sample of each shard, and the total
  std::vector<SafetensorsFile> tables_;  // what the spans below lie in
  absl::Span<const int32_t> nodes_, edges_, triplets_, text_bytes_;
  absl::Span<const float> features_;
  std::vector<Sidecar> sidecars_;
  bool has_text_ = false;
};

}  // namespace stoker::store
