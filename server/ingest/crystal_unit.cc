// SPDX-License-Identifier: Apache-2.0
#include "server/ingest/crystal_unit.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/ingest/cif_reader.h"
#include "server/ingest/crystal_options.h"
#include "server/ingest/crystal_shard.h"
#include "server/ingest/extxyz_reader.h"
#include "server/ingest/file_bytes.h"
#include "server/ingest/id_prop.h"
#include "server/ingest/json_reader.h"
#include "server/ingest/json_records.h"
#include "server/ingest/poscar_reader.h"
#include "server/ingest/sidecar.h"
#include "server/ingest/source.h"
#include "server/ingest/structure.h"
#include "server/ingest/text.h"
#include "shared/base/status_macros.h"

namespace stoker::ingest {
namespace {

constexpr uint64_t kStructureFileBytes = 256 << 20;

struct Sample {
  uint64_t number;  // as the shard keeps it
  std::string place;
  uint64_t row;  // among all structures of the sources
  Structure structure;
};

struct Left {
  std::string reason;
  std::string place;
};

class UnitReader {
 public:
  UnitReader(const Unit& unit, const UnitProgress& progress)
      : unit_(unit),
        crystal_(unit.options().crystal()),
        keys_{crystal_.id_key(), {crystal_.target().begin(), crystal_.target().end()}},
        progress_(progress) {}

  absl::StatusOr<std::string> Run();

 private:
  absl::Status ReadSource();
  absl::Status ReadDocument();
  absl::Status ReadFrames();
  absl::Status ReadFiles();
  absl::Status ReadIdPropLines();
  absl::Status ReadIdPropLine(uint64_t line, const std::vector<absl::string_view>& fields);
  // The only structure of a file that goes by a name.
  absl::StatusOr<Structure> ReadOne(const std::string& path, v1::SourceFormat format, const RecordKeys& keys);
  absl::Status ReadSeveral(const std::string& path, v1::SourceFormat format, const RecordKeys& keys,
                           StructureSink sink);

  absl::Status Take(uint64_t number, uint64_t row, const std::string& place, absl::StatusOr<Structure> structure);
  absl::Status Leave(const absl::Status& status, const std::string& place);
  absl::StatusOr<std::vector<SidecarColumn>> ReadSidecars();
  absl::Status AddGraphs(const std::vector<SidecarColumn>& columns, CrystalShard* shard);
  bool by_line() const {
    const v1::SourceFormat format = unit_.options().format();
    return format == v1::ID_PROP || (format != v1::JARVIS && format != v1::MATBENCH && unit_.files_size() == 0);
  }
  void Report(uint64_t bytes) const {
    if (progress_) progress_(std::min(bytes, unit_.end_bytes() - unit_.begin_bytes()));
  }

  const Unit& unit_;
  const v1::IngestOptions::Crystal& crystal_;
  const RecordKeys keys_;
  const UnitProgress& progress_;
  std::vector<Sample> samples_;
  std::vector<Left> left_;
};

absl::Status UnitReader::Leave(const absl::Status& status, const std::string& place) {
  if (crystal_.on_error() != v1::IngestOptions::Crystal::ON_ERROR_SKIP || !absl::IsInvalidArgument(status)) {
    return status;
  }
  const BadDataParts parts = PartsOf(status);  // whose place may be more exact
  left_.push_back(
      {parts.reason.empty() ? std::string(status.message()) : parts.reason, parts.place.empty() ? place : parts.place});
  return absl::OkStatus();
}

absl::Status UnitReader::Take(uint64_t number, uint64_t row, const std::string& place,
                              absl::StatusOr<Structure> structure) {
  if (!structure.ok()) return Leave(structure.status(), place);
  for (const double target : structure->targets) {
    if (!std::isnan(target)) continue;
    left_.push_back({"target is missing in the source (na, null, NaN)", place});
    return absl::OkStatus();
  }
  if (!IsUtf8(structure->id)) return Leave(BadData(place, "wrong id: not UTF-8", "rename it"), place);
  absl::Status status = CompleteStructure(place, &*structure);
  if (status.ok() && crystal_.primitive()) status = ReducePrimitive(place, &*structure);
  if (!status.ok()) return Leave(status, place);
  samples_.push_back({number, place, row, *std::move(structure)});
  return absl::OkStatus();
}

absl::Status UnitReader::ReadDocument() {
  const bool table = unit_.options().format() == v1::MATBENCH;
  const uint64_t first = unit_.first_number(), end = first + unit_.records();
  std::vector<std::string> columns(unit_.columns().begin(), unit_.columns().end());
  std::vector<std::string> ids(unit_.records());
  STOKER_ASSIGN_OR_RETURN(const bool packed, IsGzip(unit_.source()));
  JsonReader reader;
  const JsonStart start = table || packed ? JsonStart{} : JsonStart{unit_.begin_bytes(), first};
  const absl::Status status = ScanJson(unit_.source(), start, [&](const JsonElement& e) -> absl::StatusOr<bool> {
    const bool here = e.index >= first && e.index < end;
    if (here && e.key == "index") ids[e.index - first] = reader.ReadId(e.text);
    if (!here || (table && e.key != "data")) return table || e.index < end;
    const std::string place = absl::StrCat(unit_.source(), ": record ", e.index);
    STOKER_RETURN_IF_ERROR(
        Take(e.index, unit_.first_row() + e.index - first, place,
             table ? reader.ReadMatbench(e.text, place, columns, keys_) : reader.ReadJarvis(e.text, place, keys_)));
    Report(e.end - std::min(e.end, unit_.begin_bytes()));
    return table || e.index + 1 < end;
  });
  STOKER_RETURN_IF_ERROR(status);
  for (Sample& sample : samples_) {  // the index may stand after the data
    if (table) sample.structure.id = ids[sample.number - first];
  }
  return absl::OkStatus();
}

absl::Status UnitReader::ReadFrames() {
  STOKER_ASSIGN_OR_RETURN(const OpenSource source, OpenRegularFile(unit_.source()));
  const uint64_t size = unit_.end_bytes() - unit_.begin_bytes();
  if (unit_.end_bytes() > source.size_bytes) return BadData(unit_.source(), "the file changed", "ingest it again");
  std::string text(size, '\0');
  STOKER_RETURN_IF_ERROR(ReadExactly(source.fd.get(), unit_.begin_bytes(), text.data(), size, unit_.source()));
  uint64_t row = unit_.first_row();
  const bool alone = unit_.records() == 1 && size == source.size_bytes;
  const std::string stem = std::filesystem::path(unit_.source()).stem().string();
  const absl::Status status = ReadExtxyz(text, unit_.source(), unit_.first_number(), keys_,
                                         [&](uint64_t line, absl::StatusOr<Structure> structure) {
                                           const std::string place = absl::StrCat(unit_.source(), ":", line);
                                           if (structure.ok() && structure->id.empty() && alone) structure->id = stem;
                                           return Take(line, row++, place, std::move(structure));
                                         });
  Report(size);
  return status.ok() ? status : Leave(status, unit_.source());
}

absl::Status UnitReader::ReadSeveral(const std::string& path, v1::SourceFormat format, const RecordKeys& keys,
                                     StructureSink sink) {
  STOKER_ASSIGN_OR_RETURN(const std::string text, ReadWholeFile(path, kStructureFileBytes));
  if (format == v1::CIF) return ReadCif(text, path, sink);
  if (format == v1::EXTXYZ) return ReadExtxyz(text, path, 1, keys, sink);
  return sink(1, ReadPoscar(text, path));
}

absl::StatusOr<Structure> UnitReader::ReadOne(const std::string& path, v1::SourceFormat format,
                                              const RecordKeys& keys) {
  std::vector<absl::StatusOr<Structure>> found;
  STOKER_RETURN_IF_ERROR(ReadSeveral(path, format, keys, [&](uint64_t, absl::StatusOr<Structure> structure) {
    found.push_back(std::move(structure));
    return absl::OkStatus();
  }));
  if (found.size() == 1) return std::move(found[0]);
  return BadData(path, absl::StrCat("wrong counts: ", found.size(), " structures in a file that must hold one"),
                 "cut the file into several");
}

// A structure without an id is called like its file; blocks of a CIF have their names added.
absl::Status UnitReader::ReadFiles() {
  const bool whole = unit_.files_size() == 0;  // the source is the file
  const bool cif = unit_.options().format() == v1::CIF;
  const bool by_order = std::any_of(crystal_.sidecar().begin(), crystal_.sidecar().end(),
                                    [](const v1::Sidecar& sidecar) { return !IsById(sidecar); });
  uint64_t done = 0;
  for (int i = 0; i < std::max(unit_.files_size(), 1); ++i) {
    const std::string path = whole ? unit_.source() : absl::StrCat(unit_.source(), "/", unit_.files(i));
    const std::string stem = std::filesystem::path(path).stem().string();
    const uint64_t row = unit_.first_row() + static_cast<uint64_t>(i);
    std::vector<std::pair<uint64_t, absl::StatusOr<Structure>>> found;
    absl::Status status = ReadSeveral(path, unit_.options().format(), keys_, [&](uint64_t line, auto structure) {
      found.emplace_back(line, std::move(structure));
      return absl::OkStatus();
    });
    if (found.size() > 1 && by_order) {
      status = BadData(path, absl::StrCat("wrong counts: ", found.size(), " structures, and a sidecar goes by files"),
                       "give the sidecar ids (.npz), or cut the file into several");
      found.clear();
    }
    for (auto& [line, structure] : found) {
      if (structure.ok() && found.size() == 1 && structure->id.empty()) structure->id = stem;
      if (structure.ok() && found.size() > 1 && cif) structure->id = absl::StrCat(stem, ":", structure->id);
      const uint64_t number = whole ? line : unit_.first_number() + static_cast<uint64_t>(i);
      STOKER_RETURN_IF_ERROR(Take(number, row, absl::StrCat(path, ":", line), std::move(structure)));
    }
    if (!status.ok()) STOKER_RETURN_IF_ERROR(Leave(status, path));
    std::error_code ignored;
    done += std::filesystem::file_size(path, ignored);
    Report(done);
  }
  return absl::OkStatus();
}

absl::Status UnitReader::ReadIdPropLine(uint64_t line, const std::vector<absl::string_view>& fields) {
  const std::string place = absl::StrCat(unit_.source(), ":", line);
  absl::StatusOr<std::vector<double>> targets = std::vector<double>();
  if (unit_.options().target() != v1::IngestOptions::TARGET_NONE) targets = IdPropTargets(fields, keys_.targets, place);
  const absl::StatusOr<std::string> path = FindStructureFile(unit_.source(), fields[0]);
  absl::StatusOr<Structure> structure = Structure();
  if (!path.ok()) {
    structure = BadData(place, absl::StrCat("no structure file: ", Quoted(fields[0]), " is not beside id_prop.csv"),
                        "add the file, or remove the line");
  } else if (!targets.ok()) {
    structure = targets.status();
  } else {
    STOKER_ASSIGN_OR_RETURN(const v1::SourceFormat format, ResolveFormat(*path, v1::FORMAT_AUTO));
    structure = ReadOne(*path, format, {});
  }
  if (structure.ok()) {
    structure->id = std::string(fields[0]);
    structure->targets = *std::move(targets);
  }
  return Take(line, unit_.first_row() + samples_.size() + left_.size(), place, std::move(structure));
}

absl::Status UnitReader::ReadIdPropLines() {
  const IdPropRange range = {unit_.source(), unit_.begin_bytes(), unit_.end_bytes(), unit_.first_number()};
  STOKER_RETURN_IF_ERROR(ReadIdProp(range, [&](uint64_t line, const std::vector<absl::string_view>& fields) {
    return ReadIdPropLine(line, fields);
  }));
  Report(unit_.end_bytes() - unit_.begin_bytes());
  return absl::OkStatus();
}

absl::Status UnitReader::ReadSource() {
  switch (unit_.options().format()) {
    case v1::JARVIS:
    case v1::MATBENCH:
      return ReadDocument();
    case v1::ID_PROP:
      return ReadIdPropLines();
    default:
      return unit_.options().format() == v1::EXTXYZ && unit_.files_size() == 0 ? ReadFrames() : ReadFiles();
  }
}

// Columns for the samples that all of them have; the others are left out.
absl::StatusOr<std::vector<SidecarColumn>> UnitReader::ReadSidecars() {
  std::vector<SidecarColumn> columns;
  SidecarKeys keys;
  for (const Sample& sample : samples_) {
    keys.ids.push_back(sample.structure.id);
    keys.rows.push_back(sample.row);
  }
  for (const v1::Sidecar& sidecar : crystal_.sidecar()) {
    STOKER_ASSIGN_OR_RETURN(SidecarColumn column, ReadSidecar(sidecar, keys));
    columns.push_back(std::move(column));
  }
  std::vector<Sample> kept;
  for (size_t i = 0; i < samples_.size(); ++i) {
    const auto lacks =
        std::find_if(columns.begin(), columns.end(), [&](const SidecarColumn& c) { return !c.there[i]; });
    if (lacks != columns.end()) {
      const v1::Sidecar& sidecar = crystal_.sidecar(static_cast<int>(lacks - columns.begin()));
      const std::string& id = samples_[i].structure.id;
      STOKER_RETURN_IF_ERROR(Leave(
          BadData(
              samples_[i].place, absl::StrCat("missing in a sidecar: id ", Quoted(id), " is not in ", sidecar.path()),
              id.empty() ? "choose --id-key: the structures have no ids" : "complete the sidecar, or --on-error skip"),
          samples_[i].place));
      continue;
    }
    for (SidecarColumn& column : columns) std::swap(column.bytes[kept.size()], column.bytes[i]);
    kept.push_back(std::move(samples_[i]));
  }
  samples_ = std::move(kept);
  return columns;
}

absl::Status UnitReader::AddGraphs(const std::vector<SidecarColumn>& columns, CrystalShard* shard) {
  STOKER_ASSIGN_OR_RETURN(auto finder, transforms::NeighbourFinder::Create(NeighbourOptionsOf(crystal_)));
  for (size_t i = 0; i < samples_.size(); ++i) {
    const Sample& sample = samples_[i];
    bool close = false;
    transforms::Crystal crystal;
    for (size_t k = 0; k < 9; ++k) crystal.lattice[k / 3][k % 3] = sample.structure.lattice[k];
    crystal.fraction = sample.structure.frac_coords;
    crystal.periodic = sample.structure.periodic;
    absl::Status status = CheckAtoms(sample.place, sample.structure, &close);
    if (status.ok()) {
      absl::StatusOr<transforms::NeighbourList> edges = finder.Find(crystal);
      status = edges.ok() ? shard->Add(sample.structure, *edges, close, sample.number, i, sample.place)
                          : BadData(sample.place, edges.status().message(), "remove the structure");
    }
    if (!status.ok()) STOKER_RETURN_IF_ERROR(Leave(status, sample.place));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> UnitReader::Run() {
  STOKER_RETURN_IF_ERROR(ReadSource());
  STOKER_ASSIGN_OR_RETURN(const std::vector<SidecarColumn> columns, ReadSidecars());
  CrystalShard shard(unit_, columns, by_line());
  STOKER_RETURN_IF_ERROR(AddGraphs(columns, &shard));
  for (const Left& left : left_) shard.Skip(left.reason, left.place);
  return shard.Finish();
}

}  // namespace

absl::StatusOr<std::string> ReadCrystalUnit(const Unit& unit, const UnitProgress& progress) {
  return UnitReader(unit, progress).Run();
}

}  // namespace stoker::ingest
