// SPDX-License-Identifier: Apache-2.0
// The options that say which batches: a recipe and a plan.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "stoker/loader.h"
#include "stoker/v1/plan.pb.h"
#include "stoker/v1/recipe.pb.h"

namespace stoker::ctl {

struct RecipeArguments {
  // Of a GafRecipe.
  std::vector<std::string> fields;
  uint32_t image_size = 0;
  bool overlapping = false;
  std::string sample_range;
  std::string scale;
  std::string series_scale;
  std::string dtype;
  std::string stats;
  // Of a GraphRecipe.
  std::vector<std::string> tensors;
  std::string line_graph;
  std::string rbf;
  std::string float_dtype;
  std::string index_dtype;

  std::string file;  // instead of all others
};

// Adds --fields … --recipe.
void AddRecipeOptions(CLI::App* command, RecipeArguments* arguments);

// Without any option a recipe without a kind: the default one of the data set's. InvalidArgument, naming the option,
// for what is no recipe; NotFound and the like for --recipe's file.
absl::StatusOr<v1::Recipe> MakeRecipe(const RecipeArguments& arguments);

struct PlanArguments {
  uint32_t batch_size = 64;
  bool shuffle = false;
  uint64_t seed = 0;
  uint32_t rank = 0;
  uint32_t world = 1;
  std::string tail;
  std::vector<std::string> budget;  // "nodes=2000": instead of batch_size
  std::string oversize;
  std::string from;
};

// Adds --batch-size … --from.
void AddPlanOptions(CLI::App* command, PlanArguments* arguments);

absl::StatusOr<v1::Plan> MakePlan(const PlanArguments& arguments);

// "EPOCH:STEP"; empty: the beginning.
absl::StatusOr<v1::Position> ParsePosition(absl::string_view text);

// Adds --prefetch and --transport.
struct ReadingArguments {
  int prefetch = LoaderOptions::kAutomaticPrefetch;
  Transport transport = Transport::kAuto;
};
void AddReadingOptions(CLI::App* command, ReadingArguments* arguments);

}  // namespace stoker::ctl
