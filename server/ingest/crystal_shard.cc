// SPDX-License-Identifier: Apache-2.0
#include "server/ingest/crystal_shard.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/ingest/element.h"
#include "server/ingest/text.h"
#include "shared/base/status_macros.h"
#include "shared/store/manifest.h"
#include "shared/store/safetensors.h"
#include "shared/tensor/dtype.h"

namespace stoker::ingest {
namespace {

constexpr absl::string_view kText = "TEXT";

template <typename T>
absl::Span<const uint8_t> Bytes(const T& elements) {
  return {reinterpret_cast<const uint8_t*>(elements.data()), elements.size() * sizeof(elements[0])};
}

template <typename T>
void Append(absl::Span<const T> from, std::vector<T>* to) {
  to->insert(to->end(), from.begin(), from.end());
}

uint64_t ElementBytes(const tensor::TensorSpec& spec) { return tensor::DTypeSize(spec.dtype); }

}  // namespace

TripletCounts CountTriplets(const transforms::NeighbourList& edges) {
  const size_t atoms = edges.triplet_degree.size();
  std::vector<int64_t> incoming(atoms);
  int64_t own_images = 0;
  for (size_t i = 0; i < atoms; ++i) {
    const auto begin = static_cast<size_t>(edges.offset[i]);
    for (size_t e = begin; e < begin + static_cast<size_t>(edges.triplet_degree[i]); ++e) {
      ++incoming[static_cast<size_t>(edges.destination[e])];
      own_images += edges.destination[e] == edges.source[e] ? 1 : 0;
    }
  }
  TripletCounts counts;
  for (size_t i = 0; i < atoms; ++i) {
    const int64_t outgoing = edges.triplet_degree[i];
    counts.torch += incoming[i] * outgoing;
    counts.m3gnet += outgoing * (outgoing - 1);
  }
  counts.dgl = counts.torch - own_images;
  return counts;
}

CrystalShard::CrystalShard(const Unit& unit, const std::vector<SidecarColumn>& sidecars, bool by_line)
    : unit_(unit), columns_(sidecars), elements_(kMaxAtomicNumber + 1), sidecars_(sidecars.size()) {
  summary_.by_line = by_line;
  summary_.target_width = 0;
  for (const SidecarColumn& column : sidecars) summary_.sidecars.push_back(column.info);
}

absl::Status CrystalShard::AddTargets(const Structure& structure, absl::string_view place) {
  if (summary_.samples == 0) {
    summary_.target_width = structure.targets.size();
    summary_.target = structure.targets.empty() ? v1::IngestOptions::TARGET_NONE : v1::IngestOptions::TARGET_VALUE;
  }
  if (structure.targets.size() != summary_.target_width) {
    return BadData(place,
                   absl::StrCat("wrong counts: ", structure.targets.size(), " targets, structures before have ",
                                summary_.target_width),
                   "give each structure the same targets");
  }
  for (const double value : structure.targets) {
    if (!std::isinf(static_cast<float>(value))) continue;
    return BadData(place, std::isinf(value) ? "wrong target: it is infinite" : "wrong target: it is beyond float32",
                   "replace the value, or write 'na'");
  }
  Append<double>(structure.targets, &target_);
  return absl::OkStatus();
}

void CrystalShard::AddEdges(const transforms::NeighbourList& edges, const TripletCounts& triplets) {
  Append(edges.source, &edge_src_);
  Append(edges.destination, &edge_dst_);
  Append(edges.image, &edge_image_);
  Append(edges.r, &edge_r_);
  Append(edges.distance, &edge_distance_);
  Append(edges.triplet_degree, &triplet_degree_);
  edge_offset_.push_back(static_cast<int64_t>(edge_src_.size()));
  for (const int64_t count : {triplets.dgl, triplets.torch, triplets.m3gnet}) triplets_.push_back(count);
}

void CrystalShard::AddSidecars(size_t row) {
  for (size_t c = 0; c < columns_.size(); ++c) {
    const bool text = columns_[c].info.dtype == kText;
    (text ? text_bytes_ : sidecars_[c]) += columns_[c].bytes[row];
  }
  text_offset_.push_back(static_cast<int64_t>(text_bytes_.size()));
}

absl::Status CrystalShard::Add(const Structure& structure, const transforms::NeighbourList& edges, bool close,
                               uint64_t number, size_t row, absl::string_view place) {
  const TripletCounts triplets = CountTriplets(edges);
  if (std::max(triplets.torch, triplets.m3gnet) > std::numeric_limits<int32_t>::max()) {
    return BadData(place, absl::StrCat("too many triplets: ", triplets.torch), "choose a smaller --triplet-cutoff");
  }
  STOKER_RETURN_IF_ERROR(AddTargets(structure, place));
  AddEdges(edges, triplets);
  AddSidecars(row);
  Append<uint8_t>(structure.atomic_numbers, &atomic_number_);
  Append<double>(structure.frac_coords, &frac_coords_);
  Append<double>(structure.lattice, &lattice_);
  id_bytes_ += structure.id;
  node_offset_.push_back(static_cast<int64_t>(atomic_number_.size()));
  id_offset_.push_back(static_cast<int64_t>(id_bytes_.size()));
  source_line_.push_back(static_cast<int64_t>(number));
  for (const uint8_t z : structure.atomic_numbers) elements_[z] = true;
  summary_.close_atoms += close ? 1 : 0;
  ++summary_.samples;
  ++summary_.series;
  return absl::OkStatus();
}

void CrystalShard::Skip(absl::string_view reason, absl::string_view place) {
  const absl::string_view kind = reason.substr(0, reason.find_first_of(":;"));
  for (UnitSummary::Skip& skip : summary_.skipped) {
    if (skip.reason != kind) continue;
    ++skip.count;
    return;
  }
  summary_.skipped.push_back({std::string(kind), 1, 0, std::string(place)});
}

// By size of the elements, so that each is aligned to its own.
std::vector<tensor::TensorSpec> CrystalShard::Specs() const {
  const auto samples = static_cast<int64_t>(summary_.samples);
  const auto atoms = static_cast<int64_t>(atomic_number_.size());
  const auto edges = static_cast<int64_t>(edge_src_.size());
  std::vector<tensor::TensorSpec> specs = {{"node_offset", v1::DTYPE_I64, {samples + 1}},
                                           {"edge_offset", v1::DTYPE_I64, {samples + 1}},
                                           {"triplets", v1::DTYPE_I64, {samples, 3}},
                                           {"id_offset", v1::DTYPE_I64, {samples + 1}},
                                           {"source_line", v1::DTYPE_I64, {samples}},
                                           {"first_line", v1::DTYPE_I64, {1}},
                                           {"frac_coords", v1::DTYPE_F64, {atoms, 3}},
                                           {"lattice", v1::DTYPE_F64, {samples, 3, 3}},
                                           {"edge_src", v1::DTYPE_I32, {edges}},
                                           {"edge_dst", v1::DTYPE_I32, {edges}},
                                           {"edge_image", v1::DTYPE_I32, {edges, 3}},
                                           {"edge_r", v1::DTYPE_F32, {edges, 3}},
                                           {"edge_distance", v1::DTYPE_F32, {edges}},
                                           {"triplet_degree", v1::DTYPE_I32, {atoms}},
                                           {"atomic_number", v1::DTYPE_U8, {atoms}},
                                           {"id_bytes", v1::DTYPE_U8, {static_cast<int64_t>(id_bytes_.size())}}};
  if (summary_.target_width > 0) {
    specs.push_back({"target", v1::DTYPE_F64, {samples, static_cast<int64_t>(summary_.target_width)}});
  }
  for (const SidecarColumn& column : columns_) {
    if (column.info.dtype == kText) {
      specs.push_back({"text_offset", v1::DTYPE_I64, {samples + 1}});
      specs.push_back({"text_bytes", v1::DTYPE_U8, {static_cast<int64_t>(text_bytes_.size())}});
      continue;
    }
    tensor::TensorSpec spec = {absl::StrCat("sidecar.", column.info.name), v1::DTYPE_UNSPECIFIED, column.info.shape};
    spec.shape.insert(spec.shape.begin(), samples);
    const absl::StatusOr<v1::DType> dtype = tensor::ParseSafetensorsName(column.info.dtype);
    if (dtype.ok()) spec.dtype = *dtype;
    specs.push_back(std::move(spec));
  }
  std::stable_sort(specs.begin(), specs.end(), [](const tensor::TensorSpec& a, const tensor::TensorSpec& b) {
    return ElementBytes(a) > ElementBytes(b);
  });
  return specs;
}

absl::StatusOr<std::string> CrystalShard::Finish() {
  for (int z = 1; z <= kMaxAtomicNumber; ++z) {
    if (elements_[static_cast<size_t>(z)]) summary_.elements.push_back(z);
  }
  const std::vector<int64_t> first_line = {0};  // source_line is absolute
  std::map<std::string, absl::Span<const uint8_t>> bytes = {{"node_offset", Bytes(node_offset_)},
                                                            {"edge_offset", Bytes(edge_offset_)},
                                                            {"triplets", Bytes(triplets_)},
                                                            {"id_offset", Bytes(id_offset_)},
                                                            {"source_line", Bytes(source_line_)},
                                                            {"first_line", Bytes(first_line)},
                                                            {"frac_coords", Bytes(frac_coords_)},
                                                            {"lattice", Bytes(lattice_)},
                                                            {"edge_src", Bytes(edge_src_)},
                                                            {"edge_dst", Bytes(edge_dst_)},
                                                            {"edge_image", Bytes(edge_image_)},
                                                            {"edge_r", Bytes(edge_r_)},
                                                            {"edge_distance", Bytes(edge_distance_)},
                                                            {"triplet_degree", Bytes(triplet_degree_)},
                                                            {"atomic_number", Bytes(atomic_number_)},
                                                            {"id_bytes", Bytes(id_bytes_)},
                                                            {"target", Bytes(target_)},
                                                            {"text_offset", Bytes(text_offset_)},
                                                            {"text_bytes", Bytes(text_bytes_)}};
  for (size_t c = 0; c < columns_.size(); ++c) {
    bytes[absl::StrCat("sidecar.", columns_[c].info.name)] = Bytes(sidecars_[c]);
  }
  const std::string summary = summary_.ToJson();
  const std::map<std::string, std::string> metadata = {{"format", "stoker-crystal-shard"},
                                                       {"version", absl::StrCat(store::kStoreVersion)},
                                                       {"place", summary_.by_line ? "line" : "record"},
                                                       {"source", unit_.source()},
                                                       {"unit", UnitDigest(unit_)},
                                                       {"summary", summary}};
  const std::vector<tensor::TensorSpec> specs = Specs();
  STOKER_ASSIGN_OR_RETURN(auto writer, store::SafetensorsWriter::Create(unit_.shard_path(), metadata, specs));
  for (const tensor::TensorSpec& spec : specs) STOKER_RETURN_IF_ERROR(writer.AppendBytes(bytes.at(spec.name)));
  STOKER_RETURN_IF_ERROR(writer.Finish().status());
  return summary;
}

}  // namespace stoker::ingest
