// SPDX-License-Identifier: Apache-2.0
#include "shared/store/time_series_store.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "shared/base/status_macros.h"

namespace stoker::store {
namespace {

absl::Status CheckManifest(const std::string& path, const v1::StoreManifest& manifest) {
  const v1::TimeSeriesInfo& info = manifest.time_series();
  if (info.channels().empty() || info.length_max() == 0 || info.length_min() > info.length_max() ||
      info.channel_min_size() != info.channels_size() || info.channel_max_size() != info.channels_size() ||
      (info.window() != 0 && (info.stride() == 0 || info.length_max() != info.window()))) {
    return Damaged(path, "channels, lengths or window do not fit each other");
  }
  if (manifest.target() == v1::IngestOptions::TARGET_VALUE && manifest.target_width() == 0) {
    return Damaged(path, "targets without width");
  }
  return absl::OkStatus();
}

}  // namespace

void SampleView::CopyChannel(uint64_t c, double* out) const {
  if (f64 != nullptr) {
    std::copy_n(f64 + c * channel_stride, length, out);
  } else {
    std::copy_n(f32 + c * channel_stride, length, out);
  }
}

absl::StatusOr<std::shared_ptr<const TimeSeriesStore>> TimeSeriesStore::Open(const std::string& store_dir) {
  std::shared_ptr<TimeSeriesStore> store(new TimeSeriesStore());
  const std::string path = absl::StrCat(store_dir, "/", kManifestName);
  STOKER_ASSIGN_OR_RETURN(store->manifest_, ReadManifest(path));
  if (store->manifest_.kind() != v1::TIME_SERIES) {
    return absl::FailedPreconditionError(absl::StrCat("reading ", path, ": not a store of time series"));
  }
  STOKER_RETURN_IF_ERROR(CheckManifest(path, store->manifest_));
  const v1::TimeSeriesInfo& info = store->manifest_.time_series();
  store->channels_ = static_cast<uint64_t>(info.channels_size());
  store->window_ = info.window();
  store->stride_ = info.stride();
  uint64_t begin = 0;
  for (const v1::ShardInfo& shard_info : store->manifest_.shards()) {
    STOKER_ASSIGN_OR_RETURN(std::unique_ptr<Shard> shard, store->OpenShard(store_dir, shard_info));
    store->shards_.push_back(std::move(shard));
    store->shard_begin_.push_back(begin);
    begin += shard_info.samples();
  }
  store->shard_begin_.push_back(begin);
  return std::shared_ptr<const TimeSeriesStore>(std::move(store));
}

absl::StatusOr<std::unique_ptr<TimeSeriesStore::Shard>> TimeSeriesStore::OpenShard(const std::string& dir,
                                                                                   const v1::ShardInfo& info) const {
  STOKER_ASSIGN_OR_RETURN(SafetensorsFile file, OpenShardFile(dir, info));
  auto shard = std::make_unique<Shard>(std::move(file));
  const SafetensorsFile& f = shard->file;
  const auto damaged = [&](absl::string_view why) { return Damaged(f.path(), why); };
  shard->source = info.source();
  const auto place = f.metadata().find("place");
  shard->by_line = place == f.metadata().end() || place->second == "line";
  const tensor::TensorSpec* values = f.Find("values");
  if (values != nullptr && values->dtype == v1::DTYPE_F32) {
    STOKER_ASSIGN_OR_RETURN(shard->f32, f.Get<float>("values"));
  } else {
    STOKER_ASSIGN_OR_RETURN(shard->f64, f.Get<double>("values"));
  }
  shard->points = std::max(shard->f32.size(), shard->f64.size());
  STOKER_ASSIGN_OR_RETURN(shard->value_offset, f.Get<int64_t>("value_offset"));
  STOKER_ASSIGN_OR_RETURN(shard->series_length, f.Get<int64_t>("series_length"));
  STOKER_ASSIGN_OR_RETURN(shard->first_sample, f.Get<int64_t>("first_sample"));
  STOKER_ASSIGN_OR_RETURN(shard->source_line, f.Get<int64_t>("source_line"));
  STOKER_ASSIGN_OR_RETURN(const absl::Span<const int64_t> first_line, f.Get<int64_t>("first_line"));
  const size_t series = shard->series_length.size();
  size_t targets = series;
  if (manifest_.target() == v1::IngestOptions::TARGET_CLASS) {
    STOKER_ASSIGN_OR_RETURN(shard->class_target, f.Get<int64_t>("target"));
    targets = shard->class_target.size();
  } else if (manifest_.target() == v1::IngestOptions::TARGET_VALUE) {
    STOKER_ASSIGN_OR_RETURN(shard->value_target, f.Get<double>("target"));
    targets = shard->value_target.size() / manifest_.target_width();
  }
  if (shard->value_offset.size() != series + 1 || shard->first_sample.size() != series + 1 ||
      shard->source_line.size() != series || first_line.size() != 1 || targets != series) {
    return damaged("tensors of different numbers of series");
  }
  shard->first_line = first_line[0];
  if (shard->first_sample[0] != 0 || shard->first_sample[series] != static_cast<int64_t>(info.samples())) {
    return damaged(absl::StrCat("not ", info.samples(), " samples"));
  }
  return shard;
}

absl::StatusOr<TimeSeriesStore::Place> TimeSeriesStore::Locate(uint64_t index) const {
  if (index >= manifest_.samples()) {
    return absl::OutOfRangeError(absl::StrCat("sample ", index, " of ", manifest_.samples()));
  }
  const auto next_shard = std::upper_bound(shard_begin_.begin(), shard_begin_.end(), index);
  const size_t s = static_cast<size_t>(next_shard - shard_begin_.begin()) - 1;
  const Shard& shard = *shards_[s];
  const int64_t local = static_cast<int64_t>(index - shard_begin_[s]);
  const auto next = std::upper_bound(shard.first_sample.begin(), shard.first_sample.end(), local);
  const size_t series = static_cast<size_t>(next - shard.first_sample.begin()) - 1;
  // first_sample that does not rise would lead anywhere.
  if (next == shard.first_sample.begin() || series >= shard.series_length.size() ||
      shard.first_sample[series] > local) {
    return Damaged(shard.file.path(), "first_sample is not sorted");
  }
  return Place{&shard, series, static_cast<uint64_t>(local - shard.first_sample[series])};
}

absl::StatusOr<SampleView> TimeSeriesStore::Sample(uint64_t index) const {
  STOKER_ASSIGN_OR_RETURN(const Place place, Locate(index));
  const Shard& shard = *place.shard;
  const auto length = static_cast<uint64_t>(shard.series_length[place.series]);
  const auto offset = static_cast<uint64_t>(shard.value_offset[place.series]);
  uint64_t start = 0;
  uint64_t points = std::min(length, length_max());
  bool sound = points > 0 && offset <= shard.points && length <= (shard.points - offset) / channels_;
  if (window_ > 0) {
    points = window_;
    sound = sound && length >= window_ && place.window <= (length - window_) / stride_;
    start = place.window * stride_;
  }
  if (!sound) return Damaged(shard.file.path(), absl::StrCat("series ", place.series, " lies outside the values"));
  SampleView view;
  if (shard.f32.empty()) {
    view.f64 = shard.f64.data() + offset + start;
  } else {
    view.f32 = shard.f32.data() + offset + start;
  }
  view.channels = channels_;
  view.channel_stride = length;
  view.length = points;
  if (!shard.class_target.empty()) {
    view.class_id = shard.class_target[place.series];
    if (view.class_id < 0 || view.class_id >= manifest_.classes_size()) {
      return Damaged(shard.file.path(), absl::StrCat("class ", view.class_id, " of ", manifest_.classes_size()));
    }
  }
  if (!shard.value_target.empty()) {
    const uint64_t width = manifest_.target_width();
    view.values = shard.value_target.subspan(place.series * width, width);
  }
  return view;
}

std::string TimeSeriesStore::SampleName(uint64_t index) const {
  const absl::StatusOr<Place> place = Locate(index);
  if (!place.ok()) return absl::StrCat("sample ", index);
  const Shard& shard = *place->shard;
  const int64_t number = shard.first_line + shard.source_line[place->series];
  std::string name =
      shard.by_line ? absl::StrCat(shard.source, ":", number) : absl::StrCat(shard.source, ": record ", number);
  if (window_ > 0) {
    const uint64_t start = place->window * stride_;
    absl::StrAppend(&name, " points ", start, "..", start + window_ - 1);
  }
  return name;
}

}  // namespace stoker::store
