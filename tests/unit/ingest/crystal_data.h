// SPDX-License-Identifier: Apache-2.0
// Files of crystals of any format, read as ingest reads them, and where the real ones are.
#pragma once

#include <stdlib.h>

#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/ingest/file_bytes.h"
#include "server/ingest/json_reader.h"
#include "server/ingest/json_records.h"
#include "tests/unit/ingest/structures.h"

namespace stoker::ingest {

inline std::string SharedDir() {
  const char* named = ::getenv("STOKER_SHARED");
  return named != nullptr ? named : STOKER_SHARED_DIR;
}

inline Found ReadJson(const std::string& path) {
  JsonReader reader;
  Found found;
  std::vector<std::string> columns;
  std::vector<std::string> ids;
  const absl::Status status = ScanJson(path, {}, [&](const JsonElement& e) -> absl::StatusOr<bool> {
    const std::string place = absl::StrCat(path, ": record ", e.index);
    if (e.key.empty()) {
      found.push_back(Checked(reader.ReadJarvis(e.text, place, {.id = reader.FindIdKey(e.text)}), place));
    } else if (e.key == "columns") {
      columns.push_back(reader.ReadId(e.text));
    } else if (e.key == "index") {
      ids.push_back(reader.ReadId(e.text));
    } else {
      found.push_back(Checked(reader.ReadMatbench(e.text, place, columns, {}), place));
      if (found.back().ok()) found.back()->id = ids[e.index];
    }
    return true;
  });
  if (!status.ok()) found.push_back(status);
  return found;
}

inline Found ReadAny(const std::string& path) {
  if (absl::StrContains(path, ".json")) return ReadJson(path);
  const absl::StatusOr<std::string> text = ReadWholeFile(path, 1 << 30);
  if (!text.ok()) return {text.status()};
  if (absl::EndsWith(path, ".cif")) return Cif(*text, path);
  if (absl::EndsWith(path, ".xyz")) return Extxyz(*text, {}, path);
  return {Poscar(*text, path)};
}

}  // namespace stoker::ingest
