// SPDX-License-Identifier: Apache-2.0
#include "server/batch/graph_recipe.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "shared/base/status_macros.h"

namespace stoker::batch {
namespace {

using v1::GraphRecipe;
using Crystal = v1::IngestOptions::Crystal;

constexpr uint32_t kDefaultBins = 80;
constexpr uint32_t kMaxBins = 1024;
constexpr double kDefaultHigh = 8;

absl::Status Invalid(absl::string_view field, absl::string_view reason) {
  return absl::InvalidArgumentError(absl::StrCat("recipe.graph.", field, ": ", reason));
}

// What data set and line graph must have for a tensor.
enum class Needs { kNothing, kLineGraph, kFeatures, kTarget, kText };

struct Known {
  absl::string_view name;
  Needs needs;
  bool by_default;
};

// In the order of a batch; sidecars follow.
constexpr Known kTensors[] = {{"atomic_number", Needs::kNothing, true},  {"x", Needs::kFeatures, true},
                              {"frac_coords", Needs::kNothing, true},    {"lattice", Needs::kNothing, true},
                              {"edge_index", Needs::kNothing, true},     {"r", Needs::kNothing, true},
                              {"images", Needs::kNothing, false},        {"distance", Needs::kNothing, false},
                              {"rbf", Needs::kNothing, false},           {"lg_edge_index", Needs::kLineGraph, true},
                              {"cos", Needs::kLineGraph, true},          {"num_nodes", Needs::kNothing, true},
                              {"num_edges", Needs::kNothing, true},      {"num_triplets", Needs::kLineGraph, true},
                              {"batch", Needs::kNothing, true},          {"ptr", Needs::kNothing, true},
                              {"target", Needs::kTarget, true},          {"index", Needs::kNothing, true},
                              {"text_offsets", Needs::kText, true},      {"text_bytes", Needs::kText, true},
                              {"atom_features", Needs::kFeatures, false}};

class Completer {
 public:
  Completer(GraphRecipe* recipe, const v1::StoreManifest& manifest)
      : recipe_(recipe), manifest_(manifest), info_(manifest.crystals()) {}

  absl::Status Complete() {
    STOKER_RETURN_IF_ERROR(CompleteLineGraph());
    STOKER_RETURN_IF_ERROR(CompleteTensors());
    STOKER_RETURN_IF_ERROR(CompleteRbf());
    STOKER_RETURN_IF_ERROR(CompleteDType("float_dtype", {v1::DTYPE_F32, v1::DTYPE_F16, v1::DTYPE_BF16}));
    return CompleteDType("index_dtype", {v1::DTYPE_I64, v1::DTYPE_I32});
  }

 private:
  absl::Status CompleteLineGraph() {
    const bool table = info_.graph().graph() == Crystal::CGCNN;
    if (!GraphRecipe::LineGraph_IsValid(recipe_->line_graph())) {
      return Invalid("line_graph", absl::StrCat("unknown value ", int{recipe_->line_graph()}));
    }
    if (recipe_->line_graph() == GraphRecipe::LINE_GRAPH_UNSPECIFIED) {
      recipe_->set_line_graph(table ? GraphRecipe::NO_LINE_GRAPH : GraphRecipe::DGL);
    }
    if (table && recipe_->line_graph() != GraphRecipe::NO_LINE_GRAPH) {
      return Invalid("line_graph", "a data set of graph cgcnn has edges to nowhere, and no line graph");
    }
    return absl::OkStatus();
  }

  // Why the tensor cannot be had; empty when it can.
  std::string Missing(Needs needs) const {
    const auto text = [](const auto& sidecar) { return sidecar.dtype() == "TEXT"; };
    switch (needs) {
      case Needs::kNothing:
        break;
      case Needs::kLineGraph:
        if (recipe_->line_graph() == GraphRecipe::NO_LINE_GRAPH) return "there is no line graph";
        break;
      case Needs::kFeatures:
        if (info_.atom_feature_width() == 0) return "the data set was ingested without --atom-features";
        break;
      case Needs::kTarget:
        if (manifest_.target() != v1::IngestOptions::TARGET_VALUE) return "the data set has no targets";
        break;
      case Needs::kText:
        if (std::none_of(info_.sidecars().begin(), info_.sidecars().end(), text)) return "the data set has no texts";
        break;
    }
    return "";
  }

  absl::Status CompleteTensors() {
    std::vector<std::string> asked(recipe_->tensors().begin(), recipe_->tensors().end());
    const bool by_default = asked.empty();
    std::sort(asked.begin(), asked.end());
    const auto twice = std::adjacent_find(asked.begin(), asked.end());
    if (twice != asked.end()) return Invalid("tensors", absl::StrCat(*twice, " is there twice"));
    std::vector<std::string> known;
    recipe_->clear_tensors();
    const auto add = [&](const std::string& name, bool wanted, const std::string& missing) -> absl::Status {
      known.push_back(name);
      const bool named = std::binary_search(asked.begin(), asked.end(), name);
      if (named && !missing.empty()) return Invalid("tensors", absl::StrCat(name, ": ", missing));
      if (named || (wanted && missing.empty())) recipe_->add_tensors(name);
      return absl::OkStatus();
    };
    for (const Known& tensor : kTensors) {
      const bool wanted = (by_default && tensor.by_default) || tensor.name == "index";
      STOKER_RETURN_IF_ERROR(add(std::string(tensor.name), wanted, Missing(tensor.needs)));
    }
    for (const v1::CrystalInfo::SidecarInfo& sidecar : info_.sidecars()) {
      if (sidecar.dtype() != "TEXT") STOKER_RETURN_IF_ERROR(add(sidecar.name(), by_default, ""));
    }
    for (const std::string& name : asked) {
      if (std::find(known.begin(), known.end(), name) != known.end()) continue;
      return Invalid("tensors", absl::StrCat("there is no ", name, "; there are: ", absl::StrJoin(known, ", ")));
    }
    return absl::OkStatus();
  }

  absl::Status CompleteRbf() {
    const bool asked = std::count(recipe_->tensors().begin(), recipe_->tensors().end(), "rbf") > 0;
    if (!asked) return recipe_->has_rbf() ? Invalid("rbf", "goes with the tensor rbf") : absl::OkStatus();
    GraphRecipe::Rbf* const rbf = recipe_->mutable_rbf();
    if (rbf->bins() == 0) rbf->set_bins(kDefaultBins);
    if (rbf->high() == 0) rbf->set_high(kDefaultHigh);
    if (rbf->bins() < 2 || rbf->bins() > kMaxBins) {
      return Invalid("rbf.bins", absl::StrCat(rbf->bins(), " is not in [2, ", kMaxBins, "]"));
    }
    if (!std::isfinite(rbf->low()) || !std::isfinite(rbf->high()) || rbf->low() >= rbf->high()) {
      return Invalid("rbf.high", absl::StrCat(rbf->low(), " to ", rbf->high(), " is no interval"));
    }
    if (rbf->gamma() == 0) rbf->set_gamma((rbf->bins() - 1) / (rbf->high() - rbf->low()));
    if (!std::isfinite(rbf->gamma()) || rbf->gamma() < 0) {
      return Invalid("rbf.gamma", absl::StrCat(rbf->gamma(), " is not above 0"));
    }
    return absl::OkStatus();
  }

  // The first of `allowed` is the default.
  absl::Status CompleteDType(absl::string_view field, const std::vector<v1::DType>& allowed) {
    const bool is_float = field == "float_dtype";
    v1::DType dtype = is_float ? recipe_->float_dtype() : recipe_->index_dtype();
    if (dtype == v1::DTYPE_UNSPECIFIED) dtype = allowed[0];
    if (std::find(allowed.begin(), allowed.end(), dtype) == allowed.end()) {
      return Invalid(field, absl::StrCat(v1::DType_IsValid(dtype) ? v1::DType_Name(dtype) : "unknown value ",
                                         v1::DType_IsValid(dtype) ? "" : absl::StrCat(int{dtype}), " is not possible"));
    }
    is_float ? recipe_->set_float_dtype(dtype) : recipe_->set_index_dtype(dtype);
    return absl::OkStatus();
  }

  GraphRecipe* const recipe_;
  const v1::StoreManifest& manifest_;
  const v1::CrystalInfo& info_;
};

}  // namespace

absl::StatusOr<v1::Recipe> CompleteGraph(const v1::Recipe& recipe, const v1::StoreManifest& manifest) {
  v1::Recipe result = recipe;
  STOKER_RETURN_IF_ERROR(Completer(result.mutable_graph(), manifest).Complete());
  return result;
}

bool IsGraphTensor(absl::string_view name) {
  return std::any_of(std::begin(kTensors), std::end(kTensors),
                     [name](const Known& known) { return known.name == name; });
}

}  // namespace stoker::batch
