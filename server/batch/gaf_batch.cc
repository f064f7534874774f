// SPDX-License-Identifier: Apache-2.0
#include "server/batch/gaf_batch.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/transforms/paa.h"
#include "server/transforms/scale.h"
#include "server/transforms/statistics.h"
#include "shared/base/status_macros.h"
#include "shared/tensor/dtype.h"

namespace stoker::batch {

using tensor::TensorSpec;
using v1::GafRecipe;

// Where one batch's tensors begin; null for those that are not asked for.
struct GafBatchMaker::Targets {
  uint8_t* gasf = nullptr;
  uint8_t* gadf = nullptr;
  float* series = nullptr;
  float* stats = nullptr;
  uint64_t stats_width = 0;
  uint8_t* mask = nullptr;
  int64_t* class_target = nullptr;
  float* value_target = nullptr;
  int64_t* index = nullptr;

  Targets(const tensor::Layout& layout, uint8_t* extent) {
    for (size_t i = 0; i < layout.tensors().size(); ++i) {
      const TensorSpec& tensor = layout.tensors()[i];
      uint8_t* const data = extent + layout.offset_bytes(i);
      if (tensor.name == "gasf") gasf = data;
      if (tensor.name == "gadf") gadf = data;
      if (tensor.name == "series") series = reinterpret_cast<float*>(data);
      if (tensor.name == "mask") mask = data;
      if (tensor.name == "index") index = reinterpret_cast<int64_t*>(data);
      if (tensor.name == "stats") {
        stats = reinterpret_cast<float*>(data);
        stats_width = 1;
        for (size_t d = 1; d < tensor.shape.size(); ++d) stats_width *= static_cast<uint64_t>(tensor.shape[d]);
      }
      if (tensor.name == "target" && tensor.dtype == v1::DTYPE_I64) class_target = reinterpret_cast<int64_t*>(data);
      if (tensor.name == "target" && tensor.dtype == v1::DTYPE_F32) value_target = reinterpret_cast<float*>(data);
    }
  }
};

GafBatchMaker::GafBatchMaker(std::shared_ptr<const store::TimeSeriesStore> store, v1::Recipe recipe)
    : BatchMaker(std::move(recipe)),
      store_(std::move(store)),
      gaf_(this->recipe().gaf()),
      channels_(static_cast<int64_t>(store_->channels())),
      points_(static_cast<int64_t>(store_->length_max())),
      padded_(store_->manifest().time_series().unequal() == v1::IngestOptions::UNEQUAL_PAD),
      ragged_(!padded_ && store_->manifest().time_series().length_min() != store_->length_max()) {
  const v1::TimeSeriesInfo& info = store_->manifest().time_series();
  for (int c = 0; c < info.channel_min_size(); ++c) bounds_.push_back({info.channel_min(c), info.channel_max(c)});
}

bool GafBatchMaker::Has(GafRecipe::Field field) const {
  return std::count(gaf_.fields().begin(), gaf_.fields().end(), field) > 0;
}

absl::StatusOr<std::vector<TensorSpec>> GafBatchMaker::TensorsFor(const Counts& total) const {
  const auto batch = static_cast<int64_t>(total.samples);
  const auto size = static_cast<int64_t>(gaf_.image_size());
  std::vector<TensorSpec> tensors;
  if (Has(GafRecipe::GASF)) tensors.push_back({"gasf", gaf_.dtype(), {batch, channels_, size, size}});
  if (Has(GafRecipe::GADF)) tensors.push_back({"gadf", gaf_.dtype(), {batch, channels_, size, size}});
  if (Has(GafRecipe::SERIES)) {
    tensors.push_back({"series", v1::DTYPE_F32, {batch, ragged_ ? size : points_, channels_}});
  }
  if (Has(GafRecipe::STATS)) {
    STOKER_ASSIGN_OR_RETURN(std::vector<int64_t> shape, transforms::StatsShape(gaf_.stats(), channels_));
    shape.insert(shape.begin(), batch);
    tensors.push_back({"stats", v1::DTYPE_F32, shape});
  }
  if (padded_) tensors.push_back({"mask", v1::DTYPE_U8, {batch, points_}});
  const v1::StoreManifest& manifest = store_->manifest();
  if (manifest.target() == v1::IngestOptions::TARGET_CLASS) tensors.push_back({"target", v1::DTYPE_I64, {batch}});
  if (manifest.target() == v1::IngestOptions::TARGET_VALUE) {
    std::vector<int64_t> shape = {batch};
    if (manifest.target_width() > 1) shape.push_back(static_cast<int64_t>(manifest.target_width()));
    tensors.push_back({"target", v1::DTYPE_F32, shape});
  }
  tensors.push_back({"index", v1::DTYPE_I64, {batch}});
  return tensors;
}

absl::Status GafBatchMaker::PrepareEncoder() {
  if (encoder_ || (!Has(GafRecipe::GASF) && !Has(GafRecipe::GADF))) return absl::OkStatus();
  STOKER_ASSIGN_OR_RETURN(const auto options, transforms::GafOptions::FromRecipe(gaf_, gaf_.image_size()));
  STOKER_ASSIGN_OR_RETURN(encoder_, transforms::GafEncoder::Create(options));
  return absl::OkStatus();
}

absl::Status GafBatchMaker::WritePart(absl::Span<const uint64_t> samples, const Counts& before, const Counts& total,
                                      absl::Span<uint8_t> extent) {
  STOKER_RETURN_IF_ERROR(PrepareEncoder());
  STOKER_ASSIGN_OR_RETURN(const tensor::Layout layout, LayoutOfPart(samples.size(), before, total, extent.size()));
  const Targets out(layout, extent.data());
  for (size_t i = 0; i < samples.size(); ++i) {
    absl::Status status = WriteSample(samples[i], before.samples + i, out);
    if (!status.ok()) return Annotate(status, NameSample(samples[i]));
  }
  if (encoder_) encoder_->Flush();
  return absl::OkStatus();
}

absl::Status GafBatchMaker::WriteSample(uint64_t sample, uint64_t row, const Targets& out) {
  STOKER_ASSIGN_OR_RETURN(const store::SampleView view, store_->Sample(sample));
  const auto length = static_cast<int64_t>(view.length);
  values_.resize(static_cast<size_t>(channels_ * length));
  for (int64_t c = 0; c < channels_; ++c) view.CopyChannel(static_cast<uint64_t>(c), values_.data() + c * length);

  out.index[row] = static_cast<int64_t>(sample);
  if (out.class_target) out.class_target[row] = view.class_id;
  if (out.value_target) {
    std::copy(view.values.begin(), view.values.end(), out.value_target + row * view.values.size());
  }
  if (out.mask) {
    uint8_t* const mask = out.mask + row * static_cast<uint64_t>(points_);
    std::memset(mask, 1, view.length);
    std::memset(mask + length, 0, static_cast<size_t>(points_ - length));
  }
  STOKER_RETURN_IF_ERROR(WriteImages(row, length, out));
  return WriteSeries(row, length, out);
}

absl::Status GafBatchMaker::WriteImages(uint64_t row, int64_t length, const Targets& out) {
  if (!encoder_) return absl::OkStatus();
  const auto size = static_cast<int64_t>(gaf_.image_size());
  const uint64_t image = encoder_->options().image_bytes();
  uint64_t offset = row * static_cast<uint64_t>(channels_) * image;
  for (int64_t c = 0; c < channels_; ++c, offset += image) {
    const absl::Span<const double> window(values_.data() + c * length, static_cast<size_t>(length));
    const absl::Status status = encoder_->Encode(window, std::min(size, length), bounds_[static_cast<size_t>(c)],
                                                 out.gasf + offset, out.gadf + offset);
    if (!status.ok()) {
      return Annotate(status, absl::StrCat("channel ", store_->manifest().time_series().channels(static_cast<int>(c))));
    }
  }
  return absl::OkStatus();
}

// Series and statistics; values_ are scaled in place, so this comes after the images.
absl::Status GafBatchMaker::WriteSeries(uint64_t row, int64_t length, const Targets& out) {
  if (!out.series && !out.stats) return absl::OkStatus();
  const transforms::ValueRange target = {gaf_.sample_range().low(), gaf_.sample_range().high()};
  for (int64_t c = 0; gaf_.series_scale() == GafRecipe::TO_CHANNEL && c < channels_; ++c) {
    STOKER_RETURN_IF_ERROR(transforms::ScaleValues(bounds_[static_cast<size_t>(c)], target,
                                                   absl::MakeSpan(values_.data() + c * length, length)));
  }
  if (out.stats) {
    STOKER_RETURN_IF_ERROR(transforms::ComputeStatistics(gaf_.stats(), values_, channels_,
                                                         {out.stats + row * out.stats_width, out.stats_width}));
  }
  if (!out.series) return absl::OkStatus();
  const int64_t rows = ragged_ ? static_cast<int64_t>(gaf_.image_size()) : points_;
  float* const series = out.series + row * static_cast<uint64_t>(rows * channels_);
  std::fill(series, series + rows * channels_, 0.0f);
  std::vector<double> reduced(static_cast<size_t>(rows));
  for (int64_t c = 0; c < channels_; ++c) {
    const double* channel = values_.data() + c * length;
    if (ragged_ && rows < length) {
      const auto segments = transforms::PaaSegments(length, rows, gaf_.overlapping());
      transforms::PaaMeans({channel, static_cast<size_t>(length)}, segments, absl::MakeSpan(reduced));
      channel = reduced.data();
    }
    for (int64_t t = 0; t < std::min(rows, length); ++t) series[t * channels_ + c] = static_cast<float>(channel[t]);
  }
  return absl::OkStatus();
}

std::string GafBatchMaker::NameSample(uint64_t sample) const {
  return absl::StrCat("sample ", sample, " (", store_->SampleName(sample), ")");
}

}  // namespace stoker::batch
