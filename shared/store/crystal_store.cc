// SPDX-License-Identifier: Apache-2.0
#include "shared/store/crystal_store.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "shared/base/status_macros.h"
#include "shared/tensor/dtype.h"

namespace stoker::store {
namespace {

constexpr char kCostsFile[] = "costs.safetensors";
constexpr char kFeaturesFile[] = "atom_features.safetensors";

// One row of `offset`; false unless it lies within `size` elements.
bool Row(absl::Span<const int64_t> offset, uint64_t row, uint64_t size, uint64_t* begin, uint64_t* count) {
  const int64_t first = offset[row];
  const int64_t last = offset[row + 1];
  if (first < 0 || last < first || static_cast<uint64_t>(last) > size) return false;
  *begin = static_cast<uint64_t>(first);
  *count = static_cast<uint64_t>(last - first);
  return true;
}

bool Row(absl::Span<const int64_t> offset, uint64_t row, absl::Span<const uint8_t> bytes, absl::string_view* text) {
  uint64_t begin, count;
  if (!Row(offset, row, bytes.size(), &begin, &count)) return false;
  *text = {reinterpret_cast<const char*>(bytes.data()) + begin, count};
  return true;
}

}  // namespace

absl::StatusOr<std::shared_ptr<const CrystalStore>> CrystalStore::Open(const std::string& store_dir) {
  std::shared_ptr<CrystalStore> store(new CrystalStore());
  const std::string path = absl::StrCat(store_dir, "/", kManifestName);
  STOKER_ASSIGN_OR_RETURN(store->manifest_, ReadManifest(path));
  if (store->manifest_.kind() != v1::CRYSTALS) {
    return absl::FailedPreconditionError(absl::StrCat("reading ", path, ": not a store of crystals"));
  }
  STOKER_RETURN_IF_ERROR(store->DescribeSidecars());
  STOKER_RETURN_IF_ERROR(store->OpenCosts(store_dir));
  STOKER_RETURN_IF_ERROR(store->OpenFeatures(store_dir));
  uint64_t begin = 0;
  for (const v1::ShardInfo& info : store->manifest_.shards()) {
    STOKER_ASSIGN_OR_RETURN(std::unique_ptr<Shard> shard, store->OpenShard(store_dir, info));
    store->shards_.push_back(std::move(shard));
    store->shard_begin_.push_back(begin);
    begin += info.samples();
  }
  store->shard_begin_.push_back(begin);
  return std::shared_ptr<const CrystalStore>(std::move(store));
}

absl::Status CrystalStore::DescribeSidecars() {
  for (const v1::CrystalInfo::SidecarInfo& info : manifest_.crystals().sidecars()) {
    if (info.dtype() == "TEXT") {
      has_text_ = true;
      continue;
    }
    STOKER_ASSIGN_OR_RETURN(const v1::DType dtype, tensor::ParseSafetensorsName(info.dtype()));
    Sidecar sidecar = {info.name(), dtype, {info.shape().begin(), info.shape().end()}};
    // Layout checks the shape: negative or overflowing dimensions.
    STOKER_RETURN_IF_ERROR(tensor::Layout::Create({{sidecar.name, sidecar.dtype, sidecar.shape}}).status());
    sidecar.bytes = tensor::TensorSpec{sidecar.name, sidecar.dtype, sidecar.shape}.size_bytes();
    sidecars_.push_back(std::move(sidecar));
  }
  return absl::OkStatus();
}

absl::Status CrystalStore::OpenCosts(const std::string& store_dir) {
  STOKER_ASSIGN_OR_RETURN(SafetensorsFile file, SafetensorsFile::Open(absl::StrCat(store_dir, "/", kCostsFile)));
  STOKER_ASSIGN_OR_RETURN(nodes_, file.Get<int32_t>("nodes"));
  STOKER_ASSIGN_OR_RETURN(edges_, file.Get<int32_t>("edges"));
  STOKER_ASSIGN_OR_RETURN(triplets_, file.Get<int32_t>("triplets"));
  STOKER_ASSIGN_OR_RETURN(text_bytes_, file.Get<int32_t>("text_bytes"));
  const bool sound = nodes_.size() == samples() && edges_.size() == samples() && triplets_.size() == 3 * samples() &&
                     text_bytes_.size() == samples();
  const auto all_natural = [](absl::Span<const int32_t> column) {
    return std::all_of(column.begin(), column.end(), [](int32_t value) { return value >= 0; });
  };
  if (!sound || !all_natural(nodes_) || !all_natural(edges_) || !all_natural(triplets_) || !all_natural(text_bytes_)) {
    return Damaged(file.path(), absl::StrCat("not the costs of ", samples(), " samples"));
  }
  tables_.push_back(std::move(file));
  return absl::OkStatus();
}

absl::Status CrystalStore::OpenFeatures(const std::string& store_dir) {
  if (atom_feature_width() == 0) return absl::OkStatus();
  STOKER_ASSIGN_OR_RETURN(SafetensorsFile file, SafetensorsFile::Open(absl::StrCat(store_dir, "/", kFeaturesFile)));
  STOKER_ASSIGN_OR_RETURN(features_, file.Get<float>("atom_features"));
  if (features_.empty() || features_.size() % atom_feature_width() != 0) {
    return Damaged(file.path(), absl::StrCat("not rows of ", atom_feature_width(), " features"));
  }
  tables_.push_back(std::move(file));
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<CrystalStore::Shard>> CrystalStore::OpenShard(const std::string& dir,
                                                                             const v1::ShardInfo& info) const {
  STOKER_ASSIGN_OR_RETURN(SafetensorsFile file, OpenShardFile(dir, info));
  auto shard = std::make_unique<Shard>(std::move(file));
  const SafetensorsFile& f = shard->file;
  shard->source = info.source();
  shard->samples = info.samples();
  const auto place = f.metadata().find("place");
  shard->by_line = place == f.metadata().end() || place->second == "line";
  STOKER_ASSIGN_OR_RETURN(shard->node_offset, f.Get<int64_t>("node_offset"));
  STOKER_ASSIGN_OR_RETURN(shard->edge_offset, f.Get<int64_t>("edge_offset"));
  STOKER_ASSIGN_OR_RETURN(shard->atomic_number, f.Get<uint8_t>("atomic_number"));
  STOKER_ASSIGN_OR_RETURN(shard->frac_coords, f.Get<double>("frac_coords"));
  STOKER_ASSIGN_OR_RETURN(shard->lattice, f.Get<double>("lattice"));
  STOKER_ASSIGN_OR_RETURN(shard->edge_source, f.Get<int32_t>("edge_src"));
  STOKER_ASSIGN_OR_RETURN(shard->edge_destination, f.Get<int32_t>("edge_dst"));
  STOKER_ASSIGN_OR_RETURN(shard->edge_image, f.Get<int32_t>("edge_image"));
  STOKER_ASSIGN_OR_RETURN(shard->edge_r, f.Get<float>("edge_r"));
  STOKER_ASSIGN_OR_RETURN(shard->edge_distance, f.Get<float>("edge_distance"));
  STOKER_ASSIGN_OR_RETURN(shard->triplet_degree, f.Get<int32_t>("triplet_degree"));
  STOKER_ASSIGN_OR_RETURN(shard->id_offset, f.Get<int64_t>("id_offset"));
  STOKER_ASSIGN_OR_RETURN(shard->id_bytes, f.Get<uint8_t>("id_bytes"));
  STOKER_ASSIGN_OR_RETURN(shard->source_line, f.Get<int64_t>("source_line"));
  STOKER_ASSIGN_OR_RETURN(const absl::Span<const int64_t> first_line, f.Get<int64_t>("first_line"));
  if (first_line.size() != 1) return Damaged(f.path(), "first_line is not one number");
  shard->first_line = first_line[0];
  if (manifest_.target() == v1::IngestOptions::TARGET_VALUE) {
    STOKER_ASSIGN_OR_RETURN(shard->target, f.Get<double>("target"));
  }
  STOKER_RETURN_IF_ERROR(OpenSidecars(shard.get()));
  STOKER_RETURN_IF_ERROR(CheckSizes(*shard));
  return shard;
}

absl::Status CrystalStore::OpenSidecars(Shard* shard) const {
  const SafetensorsFile& f = shard->file;
  if (has_text_) {
    STOKER_ASSIGN_OR_RETURN(shard->text_offset, f.Get<int64_t>("text_offset"));
    STOKER_ASSIGN_OR_RETURN(shard->text_bytes, f.Get<uint8_t>("text_bytes"));
    if (shard->text_offset.size() != shard->samples + 1) return Damaged(f.path(), "texts of another number of samples");
  }
  for (const Sidecar& sidecar : sidecars_) {
    STOKER_ASSIGN_OR_RETURN(const absl::Span<const uint8_t> bytes,
                            f.Bytes(absl::StrCat("sidecar.", sidecar.name), sidecar.dtype));
    if (bytes.size() != sidecar.bytes * shard->samples) {
      return Damaged(f.path(), absl::StrCat("sidecar ", sidecar.name, " is of another size"));
    }
    shard->sidecars.push_back(bytes);
  }
  return absl::OkStatus();
}

absl::Status CrystalStore::CheckSizes(const Shard& shard) const {
  const uint64_t samples = shard.samples;
  const uint64_t atoms = shard.atomic_number.size();
  const uint64_t edges = shard.edge_source.size();
  const uint64_t width = manifest_.target() == v1::IngestOptions::TARGET_VALUE ? manifest_.target_width() : 0;
  const bool sound = shard.node_offset.size() == samples + 1 && shard.edge_offset.size() == samples + 1 &&
                     shard.id_offset.size() == samples + 1 && shard.source_line.size() == samples &&
                     shard.lattice.size() == 9 * samples && shard.target.size() == width * samples &&
                     shard.frac_coords.size() == 3 * atoms && shard.triplet_degree.size() == atoms &&
                     shard.edge_destination.size() == edges && shard.edge_image.size() == 3 * edges &&
                     shard.edge_r.size() == 3 * edges && shard.edge_distance.size() == edges;
  return sound ? absl::OkStatus()
               : Damaged(shard.file.path(), "tensors of different numbers of samples, atoms or edges");
}

const CrystalStore::Shard* CrystalStore::Locate(uint64_t index, uint64_t* local) const {
  if (index >= samples()) return nullptr;
  const auto next = std::upper_bound(shard_begin_.begin(), shard_begin_.end(), index);
  const size_t s = static_cast<size_t>(next - shard_begin_.begin()) - 1;
  *local = index - shard_begin_[s];
  return shards_[s].get();
}

absl::StatusOr<CrystalView> CrystalStore::Sample(uint64_t index) const {
  uint64_t i = 0;
  const Shard* const shard = Locate(index, &i);
  if (shard == nullptr) return absl::OutOfRangeError(absl::StrCat("sample ", index, " of ", samples()));
  CrystalView view;
  uint64_t node, atoms, edge, edges;
  bool sound = Row(shard->node_offset, i, shard->atomic_number.size(), &node, &atoms) &&
               Row(shard->edge_offset, i, shard->edge_source.size(), &edge, &edges) &&
               Row(shard->id_offset, i, shard->id_bytes, &view.id);
  if (has_text_) sound = sound && Row(shard->text_offset, i, shard->text_bytes, &view.text);
  if (!sound) return Damaged(shard->file.path(), absl::StrCat("sample ", i, " lies outside the tensors"));
  view.atomic_number = shard->atomic_number.subspan(node, atoms);
  view.frac_coords = shard->frac_coords.subspan(3 * node, 3 * atoms);
  view.lattice = shard->lattice.subspan(9 * i, 9);
  view.edge_source = shard->edge_source.subspan(edge, edges);
  view.edge_destination = shard->edge_destination.subspan(edge, edges);
  view.edge_image = shard->edge_image.subspan(3 * edge, 3 * edges);
  view.edge_r = shard->edge_r.subspan(3 * edge, 3 * edges);
  view.edge_distance = shard->edge_distance.subspan(edge, edges);
  view.triplet_degree = shard->triplet_degree.subspan(node, atoms);
  const uint64_t width = shard->target.size() / shard->samples;
  view.target = shard->target.subspan(i * width, width);
  for (size_t s = 0; s < sidecars_.size(); ++s) {
    view.sidecars.push_back(shard->sidecars[s].subspan(i * sidecars_[s].bytes, sidecars_[s].bytes));
  }
  return view;
}

std::string CrystalStore::SampleName(uint64_t index) const {
  uint64_t i = 0;
  const Shard* const shard = Locate(index, &i);
  if (shard == nullptr) return absl::StrCat("sample ", index);
  const int64_t number = shard->first_line + shard->source_line[i];
  const std::string place =
      shard->by_line ? absl::StrCat(shard->source, ":", number) : absl::StrCat(shard->source, ": record ", number);
  absl::string_view id;
  if (!Row(shard->id_offset, i, shard->id_bytes, &id) || id.empty()) return place;
  return absl::StrCat(id, " (", place, ")");
}

}  // namespace stoker::store
