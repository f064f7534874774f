// SPDX-License-Identifier: Apache-2.0
#include "server/ingest/unit.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/ingest/crystal_plan.h"
#include "server/ingest/crystal_unit.h"
#include "server/ingest/csv_reader.h"
#include "server/ingest/npy_reader.h"
#include "server/ingest/text.h"
#include "server/ingest/ts_reader.h"
#include "server/ingest/ucr_reader.h"
#include "shared/base/sha256.h"
#include "shared/base/status_macros.h"
#include "shared/store/safetensors.h"

namespace stoker::ingest {
namespace {

using nlohmann::ordered_json;

ordered_json LengthJson(const UnitSummary::Length& length) {
  return {{"points", length.points}, {"line", length.line}};
}

UnitSummary::Length ParseLength(const ordered_json& json) {
  return {json.at("points").get<uint64_t>(), json.at("line").get<uint64_t>()};
}

UnitSummary ParseSummary(const ordered_json& json) {  // throws nlohmann's exceptions
  UnitSummary summary;
  json.at("samples").get_to(summary.samples);
  json.at("series").get_to(summary.series);
  json.at("lines").get_to(summary.lines);
  json.at("by_line").get_to(summary.by_line);
  json.at("channels").get_to(summary.channels);
  json.at("channel_min").get_to(summary.channel_min);
  json.at("channel_max").get_to(summary.channel_max);
  summary.first = ParseLength(json.at("first"));
  summary.shortest = ParseLength(json.at("shortest"));
  summary.longest = ParseLength(json.at("longest"));
  summary.differing = ParseLength(json.at("differing"));
  json.at("value_dtype").get_to(summary.value_dtype);
  const int target = json.at("target").get<int>();
  if (v1::IngestOptions::Target_IsValid(target)) summary.target = static_cast<v1::IngestOptions::Target>(target);
  json.at("target_width").get_to(summary.target_width);
  for (const ordered_json& label : json.at("labels")) {
    summary.labels.push_back({label.at("name").get<std::string>(), label.at("samples").get<uint64_t>()});
  }
  json.at("declared").get_to(summary.declared);
  for (const ordered_json& skip : json.at("skipped")) {
    summary.skipped.push_back({skip.at("reason").get<std::string>(), skip.at("count").get<uint64_t>(),
                               skip.at("line").get<uint64_t>(), skip.at("place").get<std::string>()});
  }
  json.at("close_atoms").get_to(summary.close_atoms);
  json.at("elements").get_to(summary.elements);
  for (const ordered_json& sidecar : json.at("sidecars")) {
    summary.sidecars.push_back({sidecar.at("name").get<std::string>(), sidecar.at("dtype").get<std::string>(),
                                sidecar.at("shape").get<std::vector<int64_t>>()});
  }
  return summary;
}

// Cuts [0, size) at multiples of kUnitTextBytes: readers find the lines.
void PlanText(const Unit& whole, uint64_t size, std::vector<Unit>* units) {
  for (uint64_t begin = 0; begin < size; begin += kUnitTextBytes) {
    Unit unit = whole;
    unit.set_begin_bytes(begin);
    unit.set_end_bytes(std::min(size, begin + kUnitTextBytes));
    units->push_back(std::move(unit));
  }
}

}  // namespace

std::string UnitSummary::ToJson() const {
  ordered_json json = {{"samples", samples},
                       {"series", series},
                       {"lines", lines},
                       {"by_line", by_line},
                       {"channels", channels},
                       {"channel_min", channel_min},
                       {"channel_max", channel_max},
                       {"first", LengthJson(first)},
                       {"shortest", LengthJson(shortest)},
                       {"longest", LengthJson(longest)},
                       {"differing", LengthJson(differing)},
                       {"value_dtype", value_dtype},
                       {"target", static_cast<int>(target)},
                       {"target_width", target_width},
                       {"labels", ordered_json::array()},
                       {"declared", declared},
                       {"skipped", ordered_json::array()},
                       {"close_atoms", close_atoms},
                       {"elements", elements},
                       {"sidecars", ordered_json::array()}};
  for (const Label& label : labels) json["labels"].push_back({{"name", label.name}, {"samples", label.samples}});
  for (const Skip& skip : skipped) {
    json["skipped"].push_back(
        {{"reason", skip.reason}, {"count", skip.count}, {"line", skip.line}, {"place", skip.place}});
  }
  for (const Sidecar& sidecar : sidecars) {
    json["sidecars"].push_back({{"name", sidecar.name}, {"dtype", sidecar.dtype}, {"shape", sidecar.shape}});
  }
  return json.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

absl::StatusOr<UnitSummary> UnitSummary::FromJson(const std::string& text) {
  try {
    return ParseSummary(ordered_json::parse(text));
  } catch (const ordered_json::exception& error) {
    return absl::DataLossError(absl::StrCat("reading a unit's summary: ", error.what()));
  }
}

absl::StatusOr<std::vector<Unit>> PlanUnits(absl::Span<const Source> sources, const v1::IngestOptions& options) {
  std::vector<Unit> units;
  for (const Source& source : sources) {
    Unit whole;
    whole.set_source(source.path);
    *whole.mutable_options() = options;
    whole.mutable_options()->set_format(source.format);
    if (!source.target_path.empty()) whole.mutable_options()->set_target_array(source.target_path);
    if (IsCrystalFormat(source.format)) {
      STOKER_RETURN_IF_ERROR(PlanCrystals(source, whole, &units));
      continue;
    }
    STOKER_ASSIGN_OR_RETURN(const uint64_t size, SourceSize(source.path));
    if (size == 0) return BadData(source.path, "the file is empty", "remove it from the sources");
    whole.set_end_bytes(size);
    if (source.format == v1::NPY) {
      STOKER_RETURN_IF_ERROR(PlanArray(whole, &units));
    } else if (source.format == v1::CSV) {
      units.push_back(std::move(whole));
    } else {
      PlanText(whole, size, &units);
    }
  }
  for (size_t i = 0; i < units.size(); ++i) units[i].set_unit(i);
  STOKER_RETURN_IF_ERROR(CheckSidecarRows(units, options));
  return units;
}

std::string UnitDigest(const Unit& unit) {
  Unit key = unit;
  key.clear_unit();
  key.clear_shard_path();
  return ShortDigest(key.SerializeAsString());
}

absl::StatusOr<std::string> RunUnit(const Unit& unit, const UnitProgress& progress) {
  switch (unit.options().format()) {
    case v1::TS:
      return ReadTsUnit(unit, progress);
    case v1::UCR:
      return ReadUcrUnit(unit, progress);
    case v1::NPY:
      return ReadNpyUnit(unit, progress);
    case v1::CSV:
      return ReadCsvUnit(unit, progress);
    case v1::JARVIS:
    case v1::ID_PROP:
    case v1::EXTXYZ:
    case v1::MATBENCH:
    case v1::POSCAR:
    case v1::CIF:
      return ReadCrystalUnit(unit, progress);
    default:
      return absl::InvalidArgumentError(absl::StrCat("reading ", unit.source(), ": format ",
                                                     static_cast<int>(unit.options().format()), " is not known"));
  }
}

absl::StatusOr<std::string> ReadySummary(const Unit& unit) {
  const absl::StatusOr<store::SafetensorsFile> shard = store::SafetensorsFile::Open(unit.shard_path());
  if (!shard.ok()) return absl::NotFoundError(shard.status().message());
  const auto digest = shard->metadata().find("unit");
  const auto summary = shard->metadata().find("summary");
  if (digest == shard->metadata().end() || summary == shard->metadata().end() || digest->second != UnitDigest(unit)) {
    return absl::NotFoundError(absl::StrCat(unit.shard_path(), ": of another unit"));
  }
  return summary->second;
}

}  // namespace stoker::ingest
