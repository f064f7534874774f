// SPDX-License-Identifier: Apache-2.0
#include "server/ingest/shard_builder.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <type_traits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/ingest/text.h"
#include "shared/base/status_macros.h"
#include "shared/store/safetensors.h"
#include "shared/store/time_series_store.h"

namespace stoker::ingest {
namespace {

constexpr uint64_t kLabelBytes = 4096;

// Linear in the point's number between neighbours, the nearest value at the ends. REQUIRES: not all are NaN.
void InterpolateLinear(absl::Span<double> values) {
  const size_t n = values.size();
  size_t previous = n;  // last point with a value; n before the first
  for (size_t i = 0; i < n; ++i) {
    if (std::isnan(values[i])) continue;
    const size_t from = previous == n ? 0 : previous + 1;
    for (size_t k = from; k < i; ++k) {
      const double t = previous == n ? 1 : static_cast<double>(k - previous) / static_cast<double>(i - previous);
      values[k] = previous == n ? values[i] : values[previous] + (values[i] - values[previous]) * t;
    }
    previous = i;
  }
  std::fill(values.begin() + static_cast<ptrdiff_t>(previous) + 1, values.end(), values[previous]);
}

template <typename T>
absl::Status AppendVector(store::SafetensorsWriter* writer, const std::vector<T>& elements) {
  return writer->Append(absl::Span<const T>(elements));
}

}  // namespace

ShardBuilder::ShardBuilder(const Unit& unit, Traits traits) : unit_(unit), traits_(std::move(traits)) {
  summary_.by_line = traits_.by_line;
  summary_.value_dtype = traits_.single_precision ? "F32" : "F64";
  summary_.target = traits_.target;
  summary_.target_width = traits_.target_width;
}

absl::Status ShardBuilder::SetChannels(const std::vector<std::string>& names, absl::string_view place) {
  std::vector<std::string> chosen(unit_.options().channels().begin(), unit_.options().channels().end());
  if (chosen.empty()) chosen = names;
  for (const std::string& name : chosen) {
    const auto found = std::find(names.begin(), names.end(), name);
    if (found == names.end()) {
      return BadData(place, absl::StrCat("no channel ", Quoted(name)),
                     absl::StrCat("--channels takes of ", absl::StrJoin(names, ",").substr(0, 400)));
    }
    picked_.push_back(static_cast<size_t>(found - names.begin()));
  }
  if (chosen.empty()) return BadData(place, "no channels are left", "exclude fewer columns");
  summary_.channels = std::move(chosen);
  summary_.channel_min.assign(picked_.size(), std::numeric_limits<double>::infinity());
  summary_.channel_max.assign(picked_.size(), -std::numeric_limits<double>::infinity());
  return absl::OkStatus();
}

std::string ShardBuilder::PointPlace(const Series& series, uint64_t point) const {
  if (!series.point_lines.empty()) return traits_.place(series.point_lines[point]);
  return absl::StrCat(traits_.place(series.line), ", point ", point);
}

absl::Status ShardBuilder::Add(const Series& series) {
  if (series.length == 0) return BadData(traits_.place(series.line), "a series of no points", "remove it");
  STOKER_RETURN_IF_ERROR(CheckLabel(series));
  const uint64_t window = unit_.options().window();
  uint64_t samples = 1;
  if (window > 0) {
    if (series.length < window) {
      Skip(kTooShort, series.line);
      return absl::OkStatus();
    }
    samples = (series.length - window) / unit_.options().stride() + 1;
  }
  for (size_t c = 0; c < picked_.size(); ++c) {
    STOKER_RETURN_IF_ERROR(traits_.single_precision ? AddChannel(series, c, &f32_) : AddChannel(series, c, &f64_));
  }
  value_offset_.push_back(static_cast<int64_t>(std::max(f32_.size(), f64_.size())));
  series_length_.push_back(static_cast<int64_t>(series.length));
  first_sample_.push_back(first_sample_.back() + static_cast<int64_t>(samples));
  source_line_.push_back(static_cast<int64_t>(series.line));
  NoteTarget(series, samples);
  NoteLength(series);
  summary_.samples += samples;
  ++summary_.series;
  return absl::OkStatus();
}

template <typename T>
absl::Status ShardBuilder::AddChannel(const Series& series, size_t channel, std::vector<T>* out) {
  const double* source = series.values.data() + picked_[channel] * series.length;
  channel_.assign(source, source + series.length);
  double low = std::numeric_limits<double>::infinity();
  double high = -low;
  bool missing = false;
  for (const double value : channel_) missing |= std::isnan(value);
  if (missing) STOKER_RETURN_IF_ERROR(FillMissing(series, channel, channel_.data()));
  for (double& value : channel_) {
    if constexpr (std::is_same_v<T, float>)
      value = static_cast<float>(value);  // so that the range is that of the store
    low = std::min(low, value);
    high = std::max(high, value);
  }
  if (std::isinf(low) || std::isinf(high)) {
    const auto infinite = std::find_if(channel_.begin(), channel_.end(), [](double v) { return std::isinf(v); });
    return BadData(PointPlace(series, static_cast<uint64_t>(infinite - channel_.begin())),
                   absl::StrCat("channel ", Quoted(summary_.channels[channel]), " is infinite"),
                   "replace the value, or mark it as missing (NaN) and choose --missing linear or zero");
  }
  summary_.channel_min[channel] = std::min(summary_.channel_min[channel], low);
  summary_.channel_max[channel] = std::max(summary_.channel_max[channel], high);
  out->insert(out->end(), channel_.begin(), channel_.end());
  return absl::OkStatus();
}

absl::Status ShardBuilder::FillMissing(const Series& series, size_t channel, double* values) {
  const absl::Span<double> points(values, series.length);
  const auto first = std::find_if(points.begin(), points.end(), [](double v) { return std::isnan(v); });
  const std::string name = absl::StrCat("channel ", Quoted(summary_.channels[channel]));
  switch (unit_.options().missing()) {
    case v1::IngestOptions::MISSING_ZERO:
      for (double& value : points) value = std::isnan(value) ? 0 : value;
      return absl::OkStatus();
    case v1::IngestOptions::MISSING_LINEAR:
      if (std::all_of(points.begin(), points.end(), [](double v) { return std::isnan(v); })) {
        return BadData(traits_.place(series.line), absl::StrCat(name, " has no value at all in this series"),
                       "remove the series or the channel, or choose --missing zero");
      }
      InterpolateLinear(points);
      return absl::OkStatus();
    default:
      return BadData(PointPlace(series, static_cast<uint64_t>(first - points.begin())),
                     absl::StrCat(name, " has a missing value"), "choose --missing linear or --missing zero");
  }
}

absl::Status ShardBuilder::CheckLabel(const Series& series) {
  if (traits_.target != v1::IngestOptions::TARGET_CLASS) return absl::OkStatus();
  if (series.label.empty())
    return BadData(traits_.place(series.line), "the label is empty", "give each series its class");
  if (series.label.size() > kLabelBytes || !IsUtf8(series.label)) {
    return BadData(traits_.place(series.line),
                   absl::StrCat("the label ", Quoted(series.label), " is not short UTF-8 text"),
                   "give each series its class");
  }
  return absl::OkStatus();
}

void ShardBuilder::NoteTarget(const Series& series, uint64_t samples) {
  if (traits_.target == v1::IngestOptions::TARGET_VALUE) {
    value_target_.insert(value_target_.end(), series.target.begin(), series.target.end());
  }
  if (traits_.target != v1::IngestOptions::TARGET_CLASS) return;
  const auto [id, added] = label_ids_.try_emplace(std::string(series.label), static_cast<int32_t>(label_ids_.size()));
  if (added) summary_.labels.push_back({id->first, 0});
  summary_.labels[static_cast<size_t>(id->second)].samples += samples;
  label_.push_back(id->second);
}

void ShardBuilder::NoteLength(const Series& series) {
  const UnitSummary::Length length{series.length, series.line};
  if (summary_.series == 0) summary_.first = summary_.shortest = summary_.longest = length;
  if (length.points < summary_.shortest.points) summary_.shortest = length;
  if (length.points > summary_.longest.points) summary_.longest = length;
  if (length.points != summary_.first.points && summary_.differing.points == 0) summary_.differing = length;
}

void ShardBuilder::Skip(absl::string_view reason, uint64_t line, uint64_t count) {
  for (UnitSummary::Skip& skip : summary_.skipped) {
    if (skip.reason == reason) {
      skip.count += count;
      return;
    }
  }
  summary_.skipped.push_back({std::string(reason), count, line});
}

absl::StatusOr<std::string> ShardBuilder::Finish() {
  const auto series = static_cast<int64_t>(summary_.series);
  const auto points = static_cast<int64_t>(std::max(f32_.size(), f64_.size()));
  // An empty unit has no range: infinities are not JSON.
  if (series == 0) summary_.channels.clear(), summary_.channel_min.clear(), summary_.channel_max.clear();
  const bool classes = traits_.target == v1::IngestOptions::TARGET_CLASS;
  const bool values = traits_.target == v1::IngestOptions::TARGET_VALUE;
  std::vector<tensor::TensorSpec> specs = {{"value_offset", v1::DTYPE_I64, {series + 1}},
                                           {"series_length", v1::DTYPE_I64, {series}},
                                           {"first_sample", v1::DTYPE_I64, {series + 1}},
                                           {"source_line", v1::DTYPE_I64, {series}},
                                           {"first_line", v1::DTYPE_I64, {1}}};
  const auto width = static_cast<int64_t>(traits_.target_width);
  if (classes) specs.push_back({"target", v1::DTYPE_I64, {series}});
  if (values && width == 1) specs.push_back({"target", v1::DTYPE_F64, {series}});
  if (values && width != 1) specs.push_back({"target", v1::DTYPE_F64, {series, width}});
  specs.push_back({"values", traits_.single_precision ? v1::DTYPE_F32 : v1::DTYPE_F64, {points}});
  if (classes)
    specs.push_back({"label", v1::DTYPE_I32, {series}});  // 4 bytes an element: last, so that all are aligned

  const std::string summary = summary_.ToJson();
  const std::map<std::string, std::string> metadata = {{"format", "stoker-time-series-shard"},
                                                       {"version", absl::StrCat(store::kStoreVersion)},
                                                       {"place", traits_.by_line ? "line" : "record"},
                                                       {"source", unit_.source()},
                                                       {"unit", UnitDigest(unit_)},
                                                       {"summary", summary}};
  STOKER_ASSIGN_OR_RETURN(auto writer, store::SafetensorsWriter::Create(unit_.shard_path(), metadata, specs));
  STOKER_RETURN_IF_ERROR(AppendVector(&writer, value_offset_));
  STOKER_RETURN_IF_ERROR(AppendVector(&writer, series_length_));
  STOKER_RETURN_IF_ERROR(AppendVector(&writer, first_sample_));
  STOKER_RETURN_IF_ERROR(AppendVector(&writer, source_line_));
  STOKER_RETURN_IF_ERROR(AppendVector(&writer, std::vector<int64_t>{traits_.by_line ? 1 : 0}));
  if (classes) STOKER_RETURN_IF_ERROR(AppendVector(&writer, std::vector<int64_t>(label_.begin(), label_.end())));
  if (values) STOKER_RETURN_IF_ERROR(AppendVector(&writer, value_target_));
  STOKER_RETURN_IF_ERROR(traits_.single_precision ? AppendVector(&writer, f32_) : AppendVector(&writer, f64_));
  if (classes) STOKER_RETURN_IF_ERROR(AppendVector(&writer, label_));
  STOKER_RETURN_IF_ERROR(writer.Finish().status());
  return summary;
}

}  // namespace stoker::ingest
