// SPDX-License-Identifier: Apache-2.0
#include "server/ingest/crystal_options.h"

#include <cmath>
#include <filesystem>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "server/batch/graph_recipe.h"
#include "server/ingest/source.h"
#include "server/ingest/text.h"
#include "shared/base/status_macros.h"

namespace stoker::ingest {
namespace {

using Crystal = v1::IngestOptions::Crystal;

constexpr uint32_t kDefaultNeighbours = 12;
constexpr double kDefaultTolerance = 1e-4;
constexpr double kDefaultCutoff = 8;
constexpr double kMaxCutoff = 100;
constexpr size_t kMaxNameBytes = 64;

absl::Status BadOption(absl::string_view field, absl::string_view reason) {
  return absl::InvalidArgumentError(absl::StrCat("ingest options: crystal.", field, ": ", reason));
}

bool IsName(absl::string_view name) {
  if (name.empty() || name.size() > kMaxNameBytes || !absl::ascii_islower(static_cast<unsigned char>(name[0]))) {
    return false;
  }
  for (const char c : name) {
    const auto byte = static_cast<unsigned char>(c);
    if (!absl::ascii_islower(byte) && !absl::ascii_isdigit(byte) && c != '_') return false;
  }
  return true;
}

// What of the options the rule does not use is refused where it would be believed, else written out as it is used.
absl::Status CompleteGraph(Crystal* crystal) {
  if (!Crystal::Graph_IsValid(crystal->graph()))
    return BadOption("graph (--graph)", "not knn, alignn, radius or cgcnn");
  if (crystal->graph() == Crystal::GRAPH_UNSPECIFIED) crystal->set_graph(Crystal::KNN);
  const bool radius = crystal->graph() == Crystal::RADIUS;
  if (radius && crystal->k() > 0) return BadOption("k (--k)", "a radius graph takes --max-neighbors");
  if (!radius && crystal->max_neighbors() > 0) {
    return BadOption("max_neighbors (--max-neighbors)", "only a radius graph takes it; the others take --k");
  }
  if (crystal->directed() && crystal->graph() != Crystal::KNN) {
    return BadOption("directed (--directed)", "only --graph knn has it");
  }
  const bool tolerant = crystal->graph() == Crystal::KNN || (radius && crystal->max_neighbors() > 0);
  if (crystal->has_tolerance() && !tolerant) {
    return BadOption("tolerance (--tolerance)", "for --graph knn, or radius with --max-neighbors");
  }
  if (!radius && crystal->k() == 0) crystal->set_k(kDefaultNeighbours);
  if (tolerant && !crystal->has_tolerance()) crystal->set_tolerance(kDefaultTolerance);
  if (crystal->cutoff() == 0) crystal->set_cutoff(kDefaultCutoff);
  if (!(crystal->cutoff() > 0 && crystal->cutoff() <= kMaxCutoff)) {
    return BadOption("cutoff (--cutoff)", "not in (0, 100] Å");
  }
  if (!(crystal->triplet_cutoff() >= 0 && crystal->triplet_cutoff() <= kMaxCutoff)) {
    return BadOption("triplet_cutoff (--triplet-cutoff)", "not in [0, 100] Å");
  }
  return NeighbourOptionsOf(*crystal).Check();
}

absl::Status CompleteSidecars(absl::Span<const std::string> roots, Crystal* crystal) {
  const std::set<std::string> extensions = {".csv", ".jsonl", ".npy", ".npz"};
  std::set<std::string> names;
  bool text = false;
  for (v1::Sidecar& sidecar : *crystal->mutable_sidecar()) {
    if (!IsName(sidecar.name())) {
      return BadOption("sidecar (--sidecar)", absl::StrCat(Quoted(sidecar.name()), " is no name: [a-z][a-z0-9_]*"));
    }
    if (!names.insert(sidecar.name()).second) {
      return BadOption("sidecar (--sidecar)", absl::StrCat(Quoted(sidecar.name()), " is there twice"));
    }
    if (batch::IsGraphTensor(sidecar.name())) {
      return BadOption("sidecar (--sidecar)",
                       absl::StrCat(Quoted(sidecar.name()), " is a tensor of batches of graphs; choose another name"));
    }
    STOKER_ASSIGN_OR_RETURN(std::string resolved, CheckRoots(sidecar.path(), roots));
    const std::string extension = absl::AsciiStrToLower(std::filesystem::path(resolved).extension().string());
    if (!extensions.contains(extension)) {
      return BadOption("sidecar (--sidecar)", absl::StrCat(resolved, " is none of .csv, .jsonl, .npy, .npz"));
    }
    const bool is_text = extension == ".csv" || extension == ".jsonl";
    if (is_text && std::exchange(text, true)) return BadOption("sidecar (--sidecar)", "two of them are text");
    sidecar.set_path(std::move(resolved));
  }
  if (!crystal->atom_features().empty()) {
    STOKER_ASSIGN_OR_RETURN(*crystal->mutable_atom_features(), CheckRoots(crystal->atom_features(), roots));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CompleteCrystals(absl::Span<const std::string> roots, v1::IngestOptions* options) {
  Crystal* crystal = options->mutable_crystal();
  STOKER_RETURN_IF_ERROR(CompleteGraph(crystal));
  STOKER_RETURN_IF_ERROR(CompleteSidecars(roots, crystal));
  if (!Crystal::OnError_IsValid(crystal->on_error())) return BadOption("on_error (--on-error)", "not fail or skip");
  if (crystal->on_error() == Crystal::ON_ERROR_UNSPECIFIED) crystal->set_on_error(Crystal::ON_ERROR_FAIL);
  std::set<std::string> targets;
  for (const std::string& key : crystal->target()) {
    if (key.empty() || !targets.insert(key).second) {
      return BadOption("target (--target)", absl::StrCat(Quoted(key), " is empty or there twice"));
    }
  }
  const bool none = options->target() == v1::IngestOptions::TARGET_NONE;
  v1::IngestOptions kept;
  kept.set_format(options->format());
  *kept.mutable_crystal() = *crystal;
  if (none) {
    kept.set_target(v1::IngestOptions::TARGET_NONE);
    kept.mutable_crystal()->clear_target();
  }
  *options = std::move(kept);
  return absl::OkStatus();
}

absl::Status RefuseCrystals(const v1::IngestOptions& options) {
  Crystal left = options.crystal();
  // The command line names the kind of a time series' target by the option that names crystals' targets.
  if (options.target() != v1::IngestOptions::TARGET_UNSPECIFIED && left.target_size() == 1) left.clear_target();
  if (left.target_size() > 0) {
    return absl::InvalidArgumentError(absl::StrCat("ingest options: target (--target): ", Quoted(left.target(0)),
                                                   " is not none, class or value, and the sources are time series"));
  }
  if (left.ByteSizeLong() == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      "ingest options: crystal: the sources are time series; options of graphs, sidecars and --on-error are for "
      "crystals");
}

transforms::NeighbourOptions NeighbourOptionsOf(const Crystal& crystal) {
  transforms::NeighbourOptions options;
  options.graph = crystal.graph();
  options.k = crystal.k() > 0 ? crystal.k() : kDefaultNeighbours;
  options.tolerance = crystal.has_tolerance() ? crystal.tolerance() : kDefaultTolerance;
  options.cutoff = crystal.cutoff();
  options.max_neighbors = crystal.max_neighbors();
  options.triplet_cutoff = crystal.triplet_cutoff();
  options.directed = crystal.directed();
  return options;
}

}  // namespace stoker::ingest
