// SPDX-License-Identifier: Apache-2.0
#include "server/ingest/crystal_merge.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "server/ingest/element.h"
#include "server/ingest/sidecar.h"
#include "server/ingest/text.h"
#include "shared/base/status_macros.h"
#include "shared/store/manifest.h"
#include "shared/store/safetensors.h"

namespace stoker::ingest {
namespace {

using Options = v1::IngestOptions;

constexpr char kCostsFile[] = "costs.safetensors";
constexpr char kFeaturesFile[] = "atom_features.safetensors";
constexpr size_t kBins = 20;

void MergeSkipped(absl::Span<const UnitSummary> summaries, v1::StoreManifest* manifest) {
  std::map<std::string, v1::Skipped*> by_reason;
  for (const UnitSummary& summary : summaries) {
    for (const UnitSummary::Skip& skip : summary.skipped) {
      v1::Skipped*& total = by_reason[skip.reason];
      if (total == nullptr) {
        total = manifest->add_skipped();
        total->set_reason(skip.reason);
        total->set_first(skip.place);
      }
      total->set_count(total->count() + skip.count);
    }
  }
}

absl::Status CheckAgreement(const Unit& first, const UnitSummary& a, const Unit& unit, const UnitSummary& b) {
  if (a.target_width != b.target_width) {
    return BadData(unit.source(),
                   absl::StrCat("its structures have ", b.target_width, " targets, those of ", first.source(), " ",
                                a.target_width),
                   "choose the same --target of each, or ingest them apart");
  }
  if (a.sidecars == b.sidecars) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("ingest: sidecars of ", unit.source(), " are of other types or shapes"));
}

// Names of K numbers: the keys, or the numbers of an array's elements, or of the columns of id_prop.csv.
std::vector<std::string> TargetNames(const Unit& unit, uint64_t width) {
  const auto& keys = unit.options().crystal().target();
  if (static_cast<uint64_t>(keys.size()) == width) return {keys.begin(), keys.end()};
  std::vector<std::string> names;
  for (uint64_t i = 0; i < width; ++i) {
    names.push_back(keys.empty() ? absl::StrCat(i + 1) : absl::StrCat(keys[0], "[", i, "]"));
  }
  return names;
}

void Describe(const Unit& unit, const UnitSummary& summary, const Options& options, v1::StoreManifest* manifest) {
  manifest->set_version(store::kStoreVersion);
  manifest->set_kind(v1::CRYSTALS);
  manifest->set_target(summary.target);
  manifest->set_target_width(summary.target_width);
  v1::CrystalInfo* info = manifest->mutable_crystals();
  if (summary.target_width > 0) {
    for (std::string& name : TargetNames(unit, summary.target_width)) info->add_targets(std::move(name));
  }
  for (const UnitSummary::Sidecar& sidecar : summary.sidecars) {
    v1::CrystalInfo::SidecarInfo* added = info->add_sidecars();
    added->set_name(sidecar.name);
    added->set_dtype(sidecar.dtype);
    added->mutable_shape()->Assign(sidecar.shape.begin(), sidecar.shape.end());
  }
  *info->mutable_graph() = options.crystal();
  info->mutable_graph()->clear_target();
  info->mutable_graph()->clear_sidecar();
  info->mutable_graph()->clear_atom_features();
}

// What is read from the shards, of all samples in their order.
struct Columns {
  std::vector<int32_t> nodes, edges, triplets, text_bytes;
  absl::flat_hash_map<std::string, uint64_t> ids;  // how often each is there
};

absl::Status ReadShard(const store::SafetensorsFile& file, Columns* columns) {
  STOKER_ASSIGN_OR_RETURN(const auto node_offset, file.Get<int64_t>("node_offset"));
  STOKER_ASSIGN_OR_RETURN(const auto edge_offset, file.Get<int64_t>("edge_offset"));
  STOKER_ASSIGN_OR_RETURN(const auto triplets, file.Get<int64_t>("triplets"));
  STOKER_ASSIGN_OR_RETURN(const auto id_offset, file.Get<int64_t>("id_offset"));
  STOKER_ASSIGN_OR_RETURN(const auto id_bytes, file.Get<uint8_t>("id_bytes"));
  absl::Span<const int64_t> text_offset;
  if (file.Find("text_offset") != nullptr) {
    STOKER_ASSIGN_OR_RETURN(text_offset, file.Get<int64_t>("text_offset"));
  }
  for (size_t i = 0; i + 1 < node_offset.size(); ++i) {
    columns->nodes.push_back(static_cast<int32_t>(node_offset[i + 1] - node_offset[i]));
    columns->edges.push_back(static_cast<int32_t>(edge_offset[i + 1] - edge_offset[i]));
    for (size_t k = 0; k < 3; ++k) columns->triplets.push_back(static_cast<int32_t>(triplets[3 * i + k]));
    const int64_t text = text_offset.empty() ? 0 : text_offset[i + 1] - text_offset[i];
    columns->text_bytes.push_back(static_cast<int32_t>(text));
    const auto* id = reinterpret_cast<const char*>(id_bytes.data());
    if (id_offset[i + 1] > id_offset[i]) ++columns->ids[std::string(id + id_offset[i], id + id_offset[i + 1])];
  }
  return absl::OkStatus();
}

template <typename T>
absl::Status WriteTable(const std::string& path, const std::string& format,
                        const std::vector<std::pair<tensor::TensorSpec, const std::vector<T>*>>& columns) {
  std::vector<tensor::TensorSpec> specs;
  for (const auto& [spec, values] : columns) specs.push_back(spec);
  STOKER_ASSIGN_OR_RETURN(auto writer, store::SafetensorsWriter::Create(path, {{"format", format}}, specs));
  for (const auto& [spec, values] : columns) STOKER_RETURN_IF_ERROR(writer.Append(absl::Span<const T>(*values)));
  return writer.Finish().status();
}

absl::Status WriteCosts(const std::string& path, const Columns& columns) {
  const auto samples = static_cast<int64_t>(columns.nodes.size());
  return WriteTable<int32_t>(path, "stoker-crystal-costs",
                             {{{"nodes", v1::DTYPE_I32, {samples}}, &columns.nodes},
                              {{"edges", v1::DTYPE_I32, {samples}}, &columns.edges},
                              {{"triplets", v1::DTYPE_I32, {samples, 3}}, &columns.triplets},
                              {{"text_bytes", v1::DTYPE_I32, {samples}}, &columns.text_bytes}});
}

absl::Status WriteFeatures(const std::string& path, absl::Span<const int> elements, const Options& options,
                           v1::CrystalInfo* info) {
  const std::string& table = options.crystal().atom_features();
  STOKER_ASSIGN_OR_RETURN(const AtomFeatures features, ReadAtomFeatures(table));
  for (const int z : elements) {
    if (features.there[static_cast<size_t>(z)]) continue;
    return BadData(table,
                   absl::StrCat("no row for ", ElementSymbol(static_cast<uint8_t>(z)), ", which structures have"),
                   "add a row for each element of the structures");
  }
  info->set_atom_feature_width(features.width);
  const auto width = static_cast<int64_t>(features.width);
  return WriteTable<float>(path, "stoker-atom-features",
                           {{{"atom_features", v1::DTYPE_F32, {kMaxAtomicNumber + 1, width}}, &features.values}});
}

absl::Status CheckIds(const Columns& columns, const Options& options, v1::CrystalInfo* info) {
  const std::string* repeated = nullptr;
  for (const auto& [id, count] : columns.ids) {
    if (count == 1) continue;
    info->set_repeated_ids(info->repeated_ids() + count);
    if (repeated == nullptr || id < *repeated) repeated = &id;  // the same one each time
  }
  for (const v1::Sidecar& sidecar : options.crystal().sidecar()) {
    if (repeated == nullptr || !IsById(sidecar)) continue;
    return BadData(sidecar.path(),
                   absl::StrCat("repeated id: ", columns.ids.at(*repeated), " structures are called ",
                                Quoted(*repeated), ", so what goes by id cannot be told apart"),
                   "choose another --id-key, or an .npy in the order of the structures");
  }
  return absl::OkStatus();
}

uint64_t Sum(const std::vector<int32_t>& values, size_t first = 0, size_t step = 1) {
  uint64_t sum = 0;
  for (size_t i = first; i < values.size(); i += step) sum += static_cast<uint64_t>(values[i]);
  return sum;
}

v1::Distribution DistributeColumn(const std::vector<int32_t>& values, size_t step = 1) {
  std::vector<double> column;
  for (size_t i = 0; i < values.size(); i += step) column.push_back(values[i]);
  return Distribute(std::move(column));
}

}  // namespace

absl::StatusOr<MergedStore> MergeCrystals(absl::Span<const Unit> units, absl::Span<const UnitSummary> summaries,
                                          const Options& options) {
  MergedStore out;
  size_t first = units.size();
  std::set<int> elements;
  for (size_t i = 0; i < units.size(); ++i) {
    const UnitSummary& summary = summaries[i];
    if (summary.samples == 0) continue;
    first = std::min(first, i);
    STOKER_RETURN_IF_ERROR(CheckAgreement(units[first], summaries[first], units[i], summary));
    elements.insert(summary.elements.begin(), summary.elements.end());
    v1::ShardInfo* shard = out.manifest.add_shards();
    shard->set_samples(summary.samples);
    shard->set_source(units[i].source());
    out.manifest.set_samples(out.manifest.samples() + summary.samples);
    v1::CrystalInfo* info = out.manifest.mutable_crystals();
    info->set_close_atoms(info->close_atoms() + summary.close_atoms);
    out.patches.push_back({i, 0, {}});
  }
  MergeSkipped(summaries, &out.manifest);
  if (first == units.size()) {
    const v1::StoreManifest& manifest = out.manifest;
    return BadData(manifest.skipped_size() > 0 ? manifest.skipped(0).first() : units[0].source(),
                   absl::StrCat("no structure is left",
                                manifest.skipped_size() > 0 ? ", the first one: " + manifest.skipped(0).reason() : ""),
                   "correct the sources, or choose another --target");
  }
  Describe(units[first], summaries[first], options, &out.manifest);
  out.elements.assign(elements.begin(), elements.end());
  return out;
}

absl::StatusOr<std::vector<std::string>> CompleteCrystalStore(const std::string& dir, absl::Span<const int> elements,
                                                              const Options& options, v1::StoreManifest* manifest) {
  Columns columns;
  for (const v1::ShardInfo& info : manifest->shards()) {
    STOKER_ASSIGN_OR_RETURN(const store::SafetensorsFile file, store::OpenShardFile(dir, info));
    STOKER_RETURN_IF_ERROR(ReadShard(file, &columns));
  }
  v1::CrystalInfo* info = manifest->mutable_crystals();
  STOKER_RETURN_IF_ERROR(CheckIds(columns, options, info));
  info->set_atoms(Sum(columns.nodes));
  info->set_edges(Sum(columns.edges));
  info->clear_triplets();
  for (size_t kind = 0; kind < 3; ++kind) info->add_triplets(Sum(columns.triplets, kind, 3));
  *info->mutable_atoms_each() = DistributeColumn(columns.nodes);
  *info->mutable_edges_each() = DistributeColumn(columns.edges);
  *info->mutable_triplets_each() = DistributeColumn(columns.triplets, 3);
  std::vector<std::string> files = {kCostsFile};
  STOKER_RETURN_IF_ERROR(WriteCosts(absl::StrCat(dir, "/", kCostsFile), columns));
  if (!options.crystal().atom_features().empty()) {
    STOKER_RETURN_IF_ERROR(WriteFeatures(absl::StrCat(dir, "/", kFeaturesFile), elements, options, info));
    files.push_back(kFeaturesFile);
  }
  return files;
}

v1::Distribution Distribute(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const auto n = static_cast<double>(values.size());
  const double low = values.front(), high = values.back();
  double mean = 0, square = 0;
  for (const double value : values) mean += value / n;
  for (const double value : values) square += (value - mean) * (value - mean) / n;
  const auto percentile = [&](double part) {
    const double at = part * (n - 1);
    const auto below = static_cast<size_t>(at);
    const size_t above = std::min(below + 1, values.size() - 1);
    return values[below] + (values[above] - values[below]) * (at - static_cast<double>(below));
  };
  v1::Distribution out;
  out.set_mean(mean);
  out.set_std(std::sqrt(square));
  out.set_min(low);
  out.set_p25(percentile(0.25));
  out.set_median(percentile(0.5));
  out.set_p75(percentile(0.75));
  out.set_p95(percentile(0.95));
  out.set_p99(percentile(0.99));
  out.set_max(high);
  std::vector<uint64_t> histogram(kBins);
  for (const double value : values) {
    const double bin = high > low ? (value - low) / (high - low) * kBins : 0;
    ++histogram[std::min(static_cast<size_t>(bin), kBins - 1)];
  }
  out.mutable_histogram()->Assign(histogram.begin(), histogram.end());
  return out;
}

}  // namespace stoker::ingest
