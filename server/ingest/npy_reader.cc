// SPDX-License-Identifier: Apache-2.0
#include "server/ingest/npy_reader.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/ingest/npy_array.h"
#include "server/ingest/shard_builder.h"
#include "server/ingest/text.h"
#include "shared/base/status_macros.h"

namespace stoker::ingest {
namespace {

constexpr uint64_t kBlockBytes = 1 << 20;  // read at once
constexpr uint64_t kMaxChannels = 1 << 20;
constexpr uint64_t kMaxRecordBytes = 1 << 30;  // a record is held in memory

struct Shape {
  uint64_t channels = 0;
  uint64_t length = 0;
  bool time_first = false;  // [N, T, C]
};

absl::StatusOr<Shape> ShapeOf(const NpyArray& array, v1::IngestOptions::ArrayLayout layout) {
  const std::vector<uint64_t>& shape = array.header().shape;
  if (!array.header().is_number()) return BadData(array.place(), "the data are text", "choose --data-array");
  if (array.header().row_bytes() > kMaxRecordBytes) {
    return BadData(array.place(), absl::StrCat("a record of ", array.header().row_bytes(), " bytes"),
                   "the first dimension counts the samples: cut them smaller");
  }
  if (shape.size() == 2) return Shape{1, shape[1], false};
  if (shape.size() != 3) {
    return BadData(array.place(),
                   absl::StrCat("shape (", absl::StrJoin(shape, ", "), ") has ", shape.size(), " dimensions"),
                   "give [N, T], [N, C, T], or [N, T, C] with --layout ntc");
  }
  const bool time_first = layout == v1::IngestOptions::NTC;
  const Shape result{time_first ? shape[2] : shape[1], time_first ? shape[1] : shape[2], time_first};
  if (result.channels <= kMaxChannels) return result;
  return BadData(array.place(), absl::StrCat(result.channels, " channels"), "choose the right --layout, nct or ntc");
}

absl::StatusOr<NpyArray> OpenData(const Unit& unit) {
  const v1::IngestOptions& options = unit.options();
  return NpyArray::Open(unit.source(), options.data_array(), options.target_array());
}

// Targets of the records of one unit.
class Targets {
 public:
  // Opens the target array, if there is one, and finds what kind of target it is.
  static absl::StatusOr<Targets> Open(const Unit& unit, const NpyArray& data);

  v1::IngestOptions::Target target() const { return target_; }
  uint64_t width() const { return width_; }
  // Fills label or target of `series`, which views the memory of this until the next call.
  absl::Status Read(uint64_t record, Series* series);

 private:
  absl::Status Check(const NpyArray& data);

  std::optional<NpyArray> array_;
  v1::IngestOptions::Target target_ = v1::IngestOptions::TARGET_NONE;
  uint64_t width_ = 1;
  std::string row_;
  std::string label_;
  std::vector<double> values_;
};

absl::StatusOr<Targets> Targets::Open(const Unit& unit, const NpyArray& data) {
  Targets targets;
  targets.target_ = unit.options().target();
  const std::string& name = unit.options().target_array();
  if (targets.target_ == v1::IngestOptions::TARGET_NONE) return targets;
  if (name.empty()) {
    if (targets.target_ != v1::IngestOptions::TARGET_UNSPECIFIED) {
      return BadData(unit.source(), "no array of targets", "name it with --target-array, or choose --target none");
    }
    targets.target_ = v1::IngestOptions::TARGET_NONE;
    return targets;
  }
  const bool other_file = !data.in_archive();  // then it is a path, resolved and checked by ResolveSources
  if (other_file && name[0] != '/')
    return BadData(unit.source(), "targets without a path", "name a file, --target-array");
  STOKER_ASSIGN_OR_RETURN(targets.array_, NpyArray::Open(other_file ? name : unit.source(), other_file ? "" : name));
  STOKER_RETURN_IF_ERROR(targets.Check(data));
  return targets;
}

absl::Status Targets::Check(const NpyArray& data) {
  const NpyHeader& header = array_->header();
  const std::string shape = absl::StrCat("shape (", absl::StrJoin(header.shape, ", "), ")");
  if (header.shape.size() > 2 || header.rows() != data.header().rows()) {
    return BadData(array_->place(), absl::StrCat("targets of ", shape, " for ", data.header().rows(), " records"),
                   "give [N] or [N, K]");
  }
  width_ = header.row_items();
  if (target_ == v1::IngestOptions::TARGET_UNSPECIFIED) {
    target_ = header.kind == 'f' ? v1::IngestOptions::TARGET_VALUE : v1::IngestOptions::TARGET_CLASS;
  }
  if (target_ == v1::IngestOptions::TARGET_CLASS && width_ != 1) {
    return BadData(array_->place(), absl::StrCat("classes of ", shape),
                   "give one class a record, or choose --target value");
  }
  if (target_ == v1::IngestOptions::TARGET_VALUE && !header.is_number()) {
    return BadData(array_->place(), "targets are text, not numbers", "choose --target class");
  }
  return absl::OkStatus();
}

absl::Status Targets::Read(uint64_t record, Series* series) {
  if (!array_) return absl::OkStatus();
  STOKER_RETURN_IF_ERROR(array_->ReadRows(record, 1, &row_));
  const NpyHeader& header = array_->header();
  if (target_ == v1::IngestOptions::TARGET_CLASS) {
    label_ = DecodeLabel(header, row_.data());
    series->label = label_;
    return absl::OkStatus();
  }
  values_.resize(width_);
  for (uint64_t k = 0; k < width_; ++k) values_[k] = DecoderOf(header)(row_.data() + k * header.item_bytes);
  if (!std::all_of(values_.begin(), values_.end(), [](double v) { return std::isfinite(v); })) {
    return BadData(absl::StrCat(array_->place(), ": record ", record), "the target is not a finite number",
                   "correct it, or choose --target none");
  }
  series->target = values_;
  return absl::OkStatus();
}

void DecodeRecord(const NpyHeader& header, const Shape& shape, const char* row, std::vector<double>* values) {
  const Decoder decode = DecoderOf(header);
  values->resize(shape.channels * shape.length);
  if (!shape.time_first) {
    for (size_t i = 0; i < values->size(); ++i) (*values)[i] = decode(row + i * header.item_bytes);
    return;
  }
  for (uint64_t t = 0; t < shape.length; ++t) {
    for (uint64_t c = 0; c < shape.channels; ++c) {
      (*values)[c * shape.length + t] = decode(row + (t * shape.channels + c) * header.item_bytes);
    }
  }
}

absl::Status AddRecords(const Unit& unit, NpyArray& array, const Shape& shape, const UnitProgress& progress,
                        Targets* targets, ShardBuilder* builder) {
  const NpyHeader& header = array.header();
  const uint64_t row_bytes = header.row_bytes();
  const uint64_t end = std::min(unit.end_bytes() / row_bytes, header.rows());
  const uint64_t block = std::max<uint64_t>(1, kBlockBytes / row_bytes);
  std::string rows;
  std::vector<double> values;
  for (uint64_t first = unit.begin_bytes() / row_bytes; first < end; first += block) {
    const uint64_t count = std::min(block, end - first);
    STOKER_RETURN_IF_ERROR(array.ReadRows(first, count, &rows));
    for (uint64_t i = 0; i < count; ++i) {
      DecodeRecord(header, shape, rows.data() + i * row_bytes, &values);
      Series series;
      series.length = shape.length;
      series.values = values;
      series.line = first + i;
      STOKER_RETURN_IF_ERROR(targets->Read(first + i, &series));
      STOKER_RETURN_IF_ERROR(builder->Add(series));
    }
    if (progress) progress((first + count) * row_bytes - unit.begin_bytes());
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status PlanArray(const Unit& whole, std::vector<Unit>* units) {
  STOKER_ASSIGN_OR_RETURN(const NpyArray array, OpenData(whole));
  STOKER_RETURN_IF_ERROR(ShapeOf(array, whole.options().layout()).status());
  STOKER_RETURN_IF_ERROR(Targets::Open(whole, array).status());
  const NpyHeader& header = array.header();
  const uint64_t bytes = header.rows() * header.row_bytes();
  // Small elements grow to 8 bytes (f64) in the store.
  const uint64_t stored_row_bytes = header.row_items() * std::max<uint64_t>(header.item_bytes, sizeof(double));
  const uint64_t step_rows = array.whole() ? header.rows() : std::max<uint64_t>(1, kUnitArrayBytes / stored_row_bytes);
  for (uint64_t row = 0; row < header.rows(); row += step_rows) {
    Unit unit = whole;
    unit.set_begin_bytes(row * header.row_bytes());
    unit.set_end_bytes(std::min(bytes, (row + step_rows) * header.row_bytes()));
    units->push_back(std::move(unit));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadNpyUnit(const Unit& unit, const UnitProgress& progress) {
  STOKER_ASSIGN_OR_RETURN(NpyArray array, OpenData(unit));
  if (unit.begin_bytes() == 0) STOKER_RETURN_IF_ERROR(array.CheckContent());
  STOKER_ASSIGN_OR_RETURN(const Shape shape, ShapeOf(array, unit.options().layout()));
  STOKER_ASSIGN_OR_RETURN(Targets targets, Targets::Open(unit, array));
  const NpyHeader& header = array.header();
  ShardBuilder builder(
      unit, {.by_line = false,
             .single_precision = header.kind == 'f' && header.item_bytes <= 4,
             .target = targets.target(),
             .target_width = targets.width(),
             .place = [&array](uint64_t record) { return absl::StrCat(array.place(), ": record ", record); }});
  std::vector<std::string> names;
  for (uint64_t c = 0; c < shape.channels; ++c) names.push_back(absl::StrCat(c));
  STOKER_RETURN_IF_ERROR(builder.SetChannels(names, array.place()));
  STOKER_RETURN_IF_ERROR(AddRecords(unit, array, shape, progress, &targets, &builder));
  return builder.Finish();
}

}  // namespace stoker::ingest
