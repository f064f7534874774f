// SPDX-License-Identifier: Apache-2.0
#include "server/batch/recipe.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <algorithm>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/batch/graph_recipe.h"
#include "server/transforms/gaf_options.h"
#include "server/transforms/statistics.h"
#include "shared/base/sha256.h"
#include "shared/base/status_macros.h"

namespace stoker::batch {
namespace {

using v1::GafRecipe;

absl::Status Invalid(absl::string_view field, absl::string_view reason) {
  return absl::InvalidArgumentError(absl::StrCat("recipe.gaf.", field, ": ", reason));
}

// Each field once, in the order of the tensors of a batch.
absl::Status CompleteFields(GafRecipe* recipe) {
  if (recipe->fields().empty()) {
    recipe->add_fields(GafRecipe::GASF);
    recipe->add_fields(GafRecipe::GADF);
  }
  std::vector<int> fields(recipe->fields().begin(), recipe->fields().end());
  std::sort(fields.begin(), fields.end());
  if (std::adjacent_find(fields.begin(), fields.end()) != fields.end()) return Invalid("fields", "one is there twice");
  recipe->clear_fields();
  for (const int field : fields) {
    if (!GafRecipe::Field_IsValid(field) || field == GafRecipe::FIELD_UNSPECIFIED) {
      return Invalid("fields", absl::StrCat("unknown value ", field));
    }
    recipe->add_fields(static_cast<GafRecipe::Field>(field));
  }
  return absl::OkStatus();
}

absl::Status CompleteScales(GafRecipe* recipe, int64_t channels) {
  if (!GafRecipe::SeriesScale_IsValid(recipe->series_scale())) {
    return Invalid("series_scale", absl::StrCat("unknown value ", int{recipe->series_scale()}));
  }
  if (recipe->series_scale() == GafRecipe::SERIES_SCALE_UNSPECIFIED) recipe->set_series_scale(GafRecipe::AS_READ);
  const bool stats = std::count(recipe->fields().begin(), recipe->fields().end(), GafRecipe::STATS) > 0;
  if (recipe->stats() == GafRecipe::STATS_UNSPECIFIED && stats) recipe->set_stats(GafRecipe::BASIC);
  if (recipe->stats() != GafRecipe::STATS_UNSPECIFIED && !stats) {
    return Invalid("stats", "a set is named, but fields has no STATS");
  }
  if (stats) {
    const auto shape = transforms::StatsShape(recipe->stats(), channels);
    if (!shape.ok()) return Invalid("stats", shape.status().message());
  }
  return absl::OkStatus();
}

// The points that an image can be made of.
absl::StatusOr<int64_t> PointsForImages(const GafRecipe& recipe, const v1::TimeSeriesInfo& info) {
  const auto shortest = static_cast<int64_t>(info.length_min());
  const auto longest = static_cast<int64_t>(info.length_max());
  if (shortest == longest) return longest;
  // 0, or what a completed recipe has in its place: workers complete it once more.
  const bool whole = recipe.image_size() == 0 || recipe.image_size() == longest;
  if (info.unequal() == v1::IngestOptions::UNEQUAL_PAD && whole) return longest;
  const std::string lengths = absl::StrCat("series have ", shortest, " to ", longest, " points");
  if (recipe.image_size() == 0) return Invalid("image_size", absl::StrCat(lengths, ": name a size up to ", shortest));
  if (recipe.image_size() > shortest) {
    return Invalid("image_size", absl::StrCat(recipe.image_size(), " is more than the shortest series has; ", lengths));
  }
  return shortest;
}

absl::StatusOr<v1::Recipe> CompleteGaf(const v1::Recipe& recipe, const v1::StoreManifest& manifest) {
  const v1::TimeSeriesInfo& info = manifest.time_series();
  v1::Recipe result = recipe;
  GafRecipe* const gaf = result.mutable_gaf();
  STOKER_RETURN_IF_ERROR(CompleteFields(gaf));
  STOKER_RETURN_IF_ERROR(CompleteScales(gaf, info.channels_size()));
  STOKER_ASSIGN_OR_RETURN(const int64_t points, PointsForImages(*gaf, info));
  const auto options = transforms::GafOptions::FromRecipe(*gaf, points);
  if (!options.ok()) {
    const absl::string_view message = options.status().message();
    return absl::Status(options.status().code(),
                        absl::StartsWith(message, "recipe.") ? message : absl::StrCat("recipe.gaf.", message));
  }
  gaf->set_image_size(static_cast<uint32_t>(options->image_size));
  gaf->set_dtype(options->dtype);
  gaf->set_scale(options->scale);
  gaf->mutable_sample_range()->set_low(options->sample_range.low);
  gaf->mutable_sample_range()->set_high(options->sample_range.high);
  return result;
}

}  // namespace

absl::StatusOr<v1::Recipe> CompleteRecipe(const v1::Recipe& recipe, const v1::StoreManifest& manifest) {
  v1::Recipe result = recipe;
  if (result.kind_case() == v1::Recipe::KIND_NOT_SET && manifest.kind() == v1::TIME_SERIES) result.mutable_gaf();
  if (result.kind_case() == v1::Recipe::KIND_NOT_SET && manifest.kind() == v1::CRYSTALS) result.mutable_graph();
  if (result.kind_case() == v1::Recipe::kGaf && manifest.kind() == v1::TIME_SERIES) {
    return CompleteGaf(result, manifest);
  }
  if (result.kind_case() == v1::Recipe::kGraph && manifest.kind() == v1::CRYSTALS) {
    return CompleteGraph(result, manifest);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("recipe.kind: does not go with a data set of kind ", v1::DataKind_Name(manifest.kind())));
}

std::string Digest(const google::protobuf::Message& message) {
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);
    message.SerializeToCodedStream(&coded);
  }
  return ShortDigest(bytes);
}

}  // namespace stoker::batch
