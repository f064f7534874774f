// SPDX-License-Identifier: Apache-2.0
#include "server/ingest/merge.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/ingest/crystal_merge.h"
#include "server/ingest/source.h"
#include "server/ingest/text.h"
#include "shared/base/status_macros.h"
#include "shared/store/time_series_store.h"

namespace stoker::ingest {
namespace {

using Options = v1::IngestOptions;

std::string TargetName(Options::Target target) {
  return target == Options::TARGET_CLASS ? "classes" : target == Options::TARGET_VALUE ? "values" : "no targets";
}

class Merger {
 public:
  Merger(absl::Span<const Unit> units, absl::Span<const UnitSummary> summaries, const Options& options)
      : units_(units), summaries_(summaries), options_(options) {}

  absl::StatusOr<MergedStore> Merge();

 private:
  void CountLines();
  std::string Place(size_t unit, uint64_t line) const;
  void MergeSkipped();
  absl::Status CheckSources() const;
  absl::Status CheckAgreement(size_t unit) const;
  absl::Status CheckLengths() const;
  void MergeClasses();
  void MergeLengths();
  void MergeRanges();
  void AddShards();

  const absl::Span<const Unit> units_;
  const absl::Span<const UnitSummary> summaries_;
  const Options& options_;
  std::vector<uint64_t> first_line_;  // of each unit in its file, from 1; 0 for records
  std::vector<size_t> filled_;        // units that have series
  std::map<std::string, int64_t> class_ids_;
  MergedStore out_;
};

void Merger::CountLines() {
  uint64_t lines = 0;
  for (size_t i = 0; i < units_.size(); ++i) {
    if (i == 0 || units_[i].source() != units_[i - 1].source()) lines = 0;
    first_line_.push_back(summaries_[i].by_line ? lines + 1 : 0);
    lines += summaries_[i].lines;
  }
}

std::string Merger::Place(size_t unit, uint64_t line) const {
  const std::string& source = units_[unit].source();
  return summaries_[unit].by_line ? absl::StrCat(source, ":", first_line_[unit] + line)
                                  : absl::StrCat(source, ": record ", line);
}

void Merger::MergeSkipped() {
  std::map<std::string, v1::Skipped*> by_reason;
  for (size_t i = 0; i < units_.size(); ++i) {
    for (const UnitSummary::Skip& skip : summaries_[i].skipped) {
      v1::Skipped*& total = by_reason[skip.reason];
      if (total == nullptr) {
        total = out_.manifest.add_skipped();
        total->set_reason(skip.reason);
        total->set_first(Place(i, skip.line));
      }
      total->set_count(total->count() + skip.count);
    }
  }
}

// Each file has series, or at least ones that were too short.
absl::Status Merger::CheckSources() const {
  std::string too_short;
  for (size_t i = 0; i < units_.size();) {
    bool any = false;
    size_t next = i;
    for (; next < units_.size() && units_[next].source() == units_[i].source(); ++next) {
      any = any || summaries_[next].series > 0;
      for (const UnitSummary::Skip& skip : summaries_[next].skipped) {
        if (skip.reason != kTooShort) continue;
        any = true;
        if (too_short.empty()) too_short = Place(next, skip.line);
      }
    }
    if (!any) return BadData(units_[i].source(), "there is no series in it", "remove it from the sources");
    i = next;
  }
  if (!filled_.empty()) return absl::OkStatus();
  return BadData(too_short, absl::StrFormat("the window of %d points is longer than every series", options_.window()),
                 "choose a smaller --window, or a larger --gap");
}

absl::Status Merger::CheckAgreement(size_t unit) const {
  const size_t first = filled_[0];
  const UnitSummary &a = summaries_[first], &b = summaries_[unit];
  const std::string there = Place(first, a.first.line);
  if (a.channels != b.channels) {
    std::string difference = absl::StrCat(b.channels.size(), " channels, ", there, " has ", a.channels.size());
    for (size_t c = 0; c < std::min(a.channels.size(), b.channels.size()); ++c) {
      if (a.channels[c] == b.channels[c]) continue;
      difference =
          absl::StrCat("channel ", c, " is ", Quoted(b.channels[c]), ", in ", there, " it is ", Quoted(a.channels[c]));
      break;
    }
    return BadData(Place(unit, b.first.line), difference,
                   "choose the same --channels of each file, or ingest them apart");
  }
  if (a.target != b.target || a.target_width != b.target_width) {
    return BadData(Place(unit, b.first.line),
                   absl::StrCat("its targets are ", TargetName(b.target), " of width ", b.target_width, ", in ", there,
                                " they are ", TargetName(a.target), " of width ", a.target_width),
                   "choose one --target for all, or ingest the files apart");
  }
  return absl::OkStatus();
}

absl::Status Merger::CheckLengths() const {
  if (options_.window() > 0 || options_.unequal() != Options::UNEQUAL_ERROR) return absl::OkStatus();
  const UnitSummary::Length& want = summaries_[filled_[0]].first;
  for (const size_t unit : filled_) {
    const UnitSummary& summary = summaries_[unit];
    const bool first_differs = summary.first.points != want.points;
    if (!first_differs && summary.differing.points == 0) continue;
    const UnitSummary::Length& other = first_differs ? summary.first : summary.differing;
    return BadData(
        Place(unit, other.line),
        absl::StrCat("a series of ", other.points, " points, ", Place(filled_[0], want.line), " has ", want.points),
        "choose --unequal paa, crop or pad, or cut series by --window");
  }
  return absl::OkStatus();
}

void Merger::MergeClasses() {
  std::vector<std::string> names;
  std::map<std::string, uint64_t> samples;
  for (const size_t unit : filled_) {
    for (const std::string& name : summaries_[unit].declared) names.push_back(name);
    for (const UnitSummary::Label& label : summaries_[unit].labels) {
      names.push_back(label.name);
      samples[label.name] += label.samples;
    }
  }
  for (const std::string& name : SortLabels(std::move(names))) {
    class_ids_[name] = out_.manifest.classes_size();
    v1::ClassInfo* info = out_.manifest.add_classes();
    info->set_label(name);
    info->set_samples(samples[name]);
  }
}

void Merger::MergeLengths() {
  v1::TimeSeriesInfo* info = out_.manifest.mutable_time_series();
  uint64_t shortest = summaries_[filled_[0]].shortest.points;
  uint64_t longest = 0;
  for (const size_t unit : filled_) {
    shortest = std::min(shortest, summaries_[unit].shortest.points);
    longest = std::max(longest, summaries_[unit].longest.points);
  }
  if (options_.unequal() == Options::UNEQUAL_CROP) longest = shortest;
  if (options_.window() > 0) shortest = longest = options_.window();
  info->set_length_min(shortest);
  info->set_length_max(longest);
  info->set_unequal(options_.unequal());
  info->set_window(options_.window());
  info->set_stride(options_.stride());
}

void Merger::MergeRanges() {
  v1::TimeSeriesInfo* info = out_.manifest.mutable_time_series();
  const UnitSummary& first = summaries_[filled_[0]];
  info->mutable_channels()->Assign(first.channels.begin(), first.channels.end());
  std::vector<double> low = first.channel_min, high = first.channel_max;
  bool all_single = true;
  for (const size_t unit : filled_) {
    const UnitSummary& summary = summaries_[unit];
    for (size_t c = 0; c < low.size(); ++c) {
      low[c] = std::min(low[c], summary.channel_min[c]);
      high[c] = std::max(high[c], summary.channel_max[c]);
    }
    all_single = all_single && summary.value_dtype == "F32";
    info->set_series(info->series() + summary.series);
  }
  info->mutable_channel_min()->Assign(low.begin(), low.end());
  info->mutable_channel_max()->Assign(high.begin(), high.end());
  info->set_value_dtype(all_single ? "F32" : "F64");
}

void Merger::AddShards() {
  for (const size_t unit : filled_) {
    const UnitSummary& summary = summaries_[unit];
    v1::ShardInfo* shard = out_.manifest.add_shards();
    shard->set_samples(summary.samples);
    shard->set_source(units_[unit].source());
    out_.manifest.set_samples(out_.manifest.samples() + summary.samples);
    ShardPatch patch{unit, static_cast<int64_t>(first_line_[unit]), {}};
    for (const UnitSummary::Label& label : summary.labels) patch.class_of.push_back(class_ids_.at(label.name));
    out_.patches.push_back(std::move(patch));
  }
}

absl::StatusOr<MergedStore> Merger::Merge() {
  if (units_.empty()) return absl::InvalidArgumentError("ingest: nothing to read; name a --source");
  CountLines();
  for (size_t i = 0; i < units_.size(); ++i) {
    if (summaries_[i].series > 0) filled_.push_back(i);
  }
  MergeSkipped();
  STOKER_RETURN_IF_ERROR(CheckSources());
  for (const size_t unit : filled_) STOKER_RETURN_IF_ERROR(CheckAgreement(unit));
  STOKER_RETURN_IF_ERROR(CheckLengths());
  MergeClasses();
  MergeLengths();
  MergeRanges();
  AddShards();
  out_.manifest.set_version(store::kStoreVersion);
  out_.manifest.set_kind(v1::TIME_SERIES);
  out_.manifest.set_target(summaries_[filled_[0]].target);
  out_.manifest.set_target_width(summaries_[filled_[0]].target_width);
  return std::move(out_);
}

}  // namespace

absl::StatusOr<MergedStore> MergeSummaries(absl::Span<const Unit> units, absl::Span<const UnitSummary> summaries,
                                           const Options& options) {
  if (!units.empty() && IsCrystalFormat(units[0].options().format())) return MergeCrystals(units, summaries, options);
  return Merger(units, summaries, options).Merge();
}

std::vector<std::string> SortLabels(std::vector<std::string> labels) {
  std::sort(labels.begin(), labels.end());
  labels.erase(std::unique(labels.begin(), labels.end()), labels.end());
  std::vector<std::pair<double, std::string>> numbers;
  for (const std::string& label : labels) {
    double number;
    if (!ParseValue(label, &number) || !std::isfinite(number)) return labels;
    numbers.emplace_back(number, label);
  }
  std::sort(numbers.begin(), numbers.end());
  for (size_t i = 0; i < labels.size(); ++i) labels[i] = std::move(numbers[i].second);
  return labels;
}

}  // namespace stoker::ingest
