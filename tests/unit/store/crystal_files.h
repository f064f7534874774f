// SPDX-License-Identifier: Apache-2.0
// Stores of crystals that tests write tensor by tensor.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "shared/store/manifest.h"
#include "shared/store/safetensors.h"
#include "shared/tensor/dtype.h"
#include "tests/support/status_matchers.h"

namespace stoker::store::testing {

// Tensors of a safetensors file, by name.
class TensorFile {
 public:
  template <typename T>
  TensorFile& Set(const std::string& name, std::vector<int64_t> shape, const std::vector<T>& values) {
    std::string bytes(values.size() * sizeof(T), '\0');
    if (!values.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
    tensors_[name] = {{name, DTypeOf<T>(), std::move(shape)}, std::move(bytes)};
    return *this;
  }
  void Erase(const std::string& name) { tensors_.erase(name); }

  // Bytes of the file.
  uint64_t Write(const std::string& path, const std::map<std::string, std::string>& metadata) const {
    std::vector<std::pair<tensor::TensorSpec, std::string>> sorted;
    for (const auto& [name, tensor] : tensors_) sorted.push_back(tensor);
    // As ingest writes them: elements of 8 bytes first, so that each is aligned.
    std::stable_sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) {
      return tensor::DTypeSize(a.first.dtype) > tensor::DTypeSize(b.first.dtype);
    });
    std::vector<tensor::TensorSpec> specs;
    for (const auto& [spec, bytes] : sorted) specs.push_back(spec);
    absl::StatusOr<SafetensorsWriter> writer = SafetensorsWriter::Create(path, metadata, specs);
    EXPECT_OK(writer);
    for (const auto& [spec, bytes] : sorted) {
      EXPECT_OK(writer->AppendBytes({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}));
    }
    const absl::StatusOr<uint64_t> size = writer->Finish();
    EXPECT_OK(size);
    return size.value_or(0);
  }

 private:
  std::map<std::string, std::pair<tensor::TensorSpec, std::string>> tensors_;
};

// One structure as a shard holds it.
struct CrystalSample {
  std::string id;
  std::vector<uint8_t> atomic_number;
  std::vector<double> frac_coords;
  std::vector<double> lattice;
  std::vector<int32_t> source, destination, image;
  std::vector<float> r, distance;
  std::vector<int32_t> triplet_degree;
  std::vector<int64_t> triplets = {0, 0, 0};
  double target = 0;
  std::string text;
  std::vector<float> sidecar;  // "embedding"
};

template <typename T>
void Append(std::vector<T>* to, const std::vector<T>& from) {
  to->insert(to->end(), from.begin(), from.end());
}

inline TensorFile ShardTensors(const std::vector<CrystalSample>& samples, int64_t sidecar_width) {
  std::vector<int64_t> node_offset = {0}, edge_offset = {0}, id_offset = {0}, text_offset = {0}, line, triplets;
  std::vector<uint8_t> atomic_number, ids, texts;
  std::vector<double> frac, lattice, target;
  std::vector<int32_t> source, destination, image, degree;
  std::vector<float> r, distance, sidecar;
  for (const CrystalSample& sample : samples) {
    Append(&atomic_number, sample.atomic_number);
    Append(&frac, sample.frac_coords);
    Append(&lattice, sample.lattice);
    Append(&source, sample.source);
    Append(&destination, sample.destination);
    Append(&image, sample.image);
    Append(&r, sample.r);
    Append(&distance, sample.distance);
    Append(&degree, sample.triplet_degree);
    Append(&triplets, sample.triplets);
    Append(&sidecar, sample.sidecar);
    Append(&ids, std::vector<uint8_t>(sample.id.begin(), sample.id.end()));
    Append(&texts, std::vector<uint8_t>(sample.text.begin(), sample.text.end()));
    target.push_back(sample.target);
    line.push_back(static_cast<int64_t>(line.size()));
    node_offset.push_back(static_cast<int64_t>(atomic_number.size()));
    edge_offset.push_back(static_cast<int64_t>(source.size()));
    id_offset.push_back(static_cast<int64_t>(ids.size()));
    text_offset.push_back(static_cast<int64_t>(texts.size()));
  }
  const auto s = static_cast<int64_t>(samples.size());
  const auto n = static_cast<int64_t>(atomic_number.size());
  const auto e = static_cast<int64_t>(source.size());
  TensorFile file;
  file.Set("node_offset", {s + 1}, node_offset).Set("edge_offset", {s + 1}, edge_offset);
  file.Set("id_offset", {s + 1}, id_offset).Set("id_bytes", {static_cast<int64_t>(ids.size())}, ids);
  file.Set("text_offset", {s + 1}, text_offset).Set("text_bytes", {static_cast<int64_t>(texts.size())}, texts);
  file.Set("source_line", {s}, line).Set<int64_t>("first_line", {1}, {0}).Set("triplets", {s, 3}, triplets);
  file.Set("atomic_number", {n}, atomic_number).Set("frac_coords", {n, 3}, frac).Set("lattice", {s, 3, 3}, lattice);
  file.Set("edge_src", {e}, source).Set("edge_dst", {e}, destination).Set("edge_image", {e, 3}, image);
  file.Set("edge_r", {e, 3}, r).Set("edge_distance", {e}, distance).Set("triplet_degree", {n}, degree);
  file.Set("target", {s, 1}, target).Set("sidecar.embedding", {s, sidecar_width}, sidecar);
  return file;
}

// Writes a store of one shard a vector, with a table of two features for atomic numbers up to 100.
inline v1::StoreManifest WriteCrystalStore(const std::string& dir,
                                           const std::vector<std::vector<CrystalSample>>& shards,
                                           int64_t sidecar_width = 2) {
  std::filesystem::create_directories(dir);
  v1::StoreManifest manifest;
  manifest.set_version(kStoreVersion);
  manifest.set_id("0123456789abcdef0123456789abcdef");
  manifest.set_kind(v1::CRYSTALS);
  manifest.set_target(v1::IngestOptions::TARGET_VALUE);
  manifest.set_target_width(1);
  std::vector<int32_t> nodes, edges, triplets, text_bytes;
  for (size_t i = 0; i < shards.size(); ++i) {
    v1::ShardInfo* const info = manifest.add_shards();
    info->set_file(absl::StrCat("shard-", i, ".safetensors"));
    info->set_samples(shards[i].size());
    info->set_source("/data/crystals.json");
    info->set_size_bytes(
        ShardTensors(shards[i], sidecar_width)
            .Write(absl::StrCat(dir, "/", info->file()), {{"format", "stoker-crystal-shard"}, {"place", "record"}}));
    manifest.set_samples(manifest.samples() + shards[i].size());
    for (const CrystalSample& sample : shards[i]) {
      nodes.push_back(static_cast<int32_t>(sample.atomic_number.size()));
      edges.push_back(static_cast<int32_t>(sample.source.size()));
      for (const int64_t count : sample.triplets) triplets.push_back(static_cast<int32_t>(count));
      text_bytes.push_back(static_cast<int32_t>(sample.text.size()));
    }
  }
  v1::CrystalInfo* const crystals = manifest.mutable_crystals();
  crystals->add_targets("energy");
  crystals->set_atom_feature_width(2);
  crystals->mutable_graph()->set_graph(v1::IngestOptions::Crystal::KNN);
  v1::CrystalInfo::SidecarInfo* sidecar = crystals->add_sidecars();
  sidecar->set_name("text");
  sidecar->set_dtype("TEXT");
  sidecar = crystals->add_sidecars();
  sidecar->set_name("embedding");
  sidecar->set_dtype("F32");
  sidecar->add_shape(sidecar_width);
  const auto s = static_cast<int64_t>(nodes.size());
  TensorFile costs;
  costs.Set("nodes", {s}, nodes).Set("edges", {s}, edges).Set("triplets", {s, 3}, triplets);
  costs.Set("text_bytes", {s}, text_bytes).Write(dir + "/costs.safetensors", {});
  std::vector<float> features;
  for (int z = 0; z <= 100; ++z) Append(&features, {static_cast<float>(z), 1.0f / static_cast<float>(z + 1)});
  TensorFile().Set("atom_features", {101, 2}, features).Write(dir + "/atom_features.safetensors", {});
  EXPECT_OK(WriteManifest(absl::StrCat(dir, "/", kManifestName), manifest));
  return manifest;
}

// A chain of `atoms` atoms in a cell of one Å each, every atom joined to the next and the one before; `atoms` >= 1, so
// that one atom is joined to its own images. All edges have triplets.
inline CrystalSample Chain(int atoms, const std::string& id) {
  CrystalSample sample;
  sample.id = id;
  sample.text = absl::StrCat("chain of ", atoms);
  sample.target = atoms / 2.0;
  sample.sidecar = {static_cast<float>(atoms), -1.0f};
  sample.lattice = {1.0 * atoms, 0, 0, 0, 9, 0, 0, 0, 9};
  for (int i = 0; i < atoms; ++i) {
    sample.atomic_number.push_back(static_cast<uint8_t>(i % 90 + 1));
    Append(&sample.frac_coords, {static_cast<double>(i) / atoms, 0.0, 0.0});
    const int next = (i + 1) % atoms;
    const int last = (i + atoms - 1) % atoms;
    const std::pair<int, int> forward = {next, i + 1 == atoms ? 1 : 0};
    const std::pair<int, int> back = {last, i == 0 ? -1 : 0};
    const bool forward_first = forward < back;
    for (const bool is_forward : {forward_first, !forward_first}) {
      const auto& [to, image] = is_forward ? forward : back;
      sample.source.push_back(i);
      sample.destination.push_back(to);
      Append(&sample.image, {image, 0, 0});
      Append(&sample.r, {is_forward ? 1.0f : -1.0f, 0.0f, 0.0f});
      sample.distance.push_back(1.0f);
    }
    sample.triplet_degree.push_back(2);
  }
  // in * out of each atom is 4; an edge of an atom to its own image is not its own partner in DGL's line graph.
  sample.triplets = {4 * atoms - (atoms == 1 ? 2 : 0), 4 * atoms, 2 * atoms};
  return sample;
}

}  // namespace stoker::store::testing
