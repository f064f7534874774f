// SPDX-License-Identifier: Apache-2.0
// Real crystal files of every format, against what the field's own parsers read from them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/ingest/element.h"
#include "server/ingest/file_bytes.h"
#include "server/ingest/json_reader.h"
#include "server/ingest/json_records.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/ingest/structures.h"

namespace stoker::ingest {
namespace {

using nlohmann::json;

std::string SharedDir() {
  const char* named = ::getenv("STOKER_SHARED");
  return named != nullptr ? named : STOKER_SHARED_DIR;
}

Found ReadJson(const std::string& path) {
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

Found ReadAny(const std::string& path) {
  if (absl::StrContains(path, ".json")) return ReadJson(path);
  const absl::StatusOr<std::string> text = ReadWholeFile(path, 1 << 30);
  if (!text.ok()) return {text.status()};
  if (absl::EndsWith(path, ".cif")) return Cif(*text, path);
  if (absl::EndsWith(path, ".xyz")) return Extxyz(*text, {}, path);
  return {Poscar(*text, path)};
}

void ExpectStructure(const Structure& structure, const json& golden) {
  EXPECT_EQ(structure.atoms(), golden["n_atoms"].get<uint64_t>());
  std::map<std::string, int> elements;
  for (const uint8_t z : structure.atomic_numbers) ++elements[std::string(ElementSymbol(z))];
  EXPECT_EQ(elements, (golden["elements"].get<std::map<std::string, int>>()));
  EXPECT_NEAR(std::abs(Determinant(structure.lattice)), golden["volume"].get<double>(), 2e-6);
  for (size_t row = 0; row < 3; ++row) {
    const double* v = &structure.lattice[3 * row];
    EXPECT_NEAR(std::hypot(v[0], v[1], v[2]), golden["lattice_lengths"][row].get<double>(), 1e-6);
  }
  const std::vector<bool> periodic(structure.periodic.begin(), structure.periodic.end());
  EXPECT_EQ(periodic, golden.value("pbc", std::vector<bool>{true, true, true}));
  if (golden.contains("id")) {
    const json& id = golden["id"];
    EXPECT_EQ(structure.id, id.is_string() ? id.get<std::string>() : id.dump());
  }
}

TEST(CrystalData, EveryFileAndRecord_IsReadAsTheFieldReadsIt) {
  std::ifstream file(SharedDir() + "/golden/structures.json");
  if (!file) GTEST_SKIP() << "no " << SharedDir() << "/golden/structures.json on this machine";
  const json golden = json::parse(file)["structures"];
  std::map<std::string, std::map<size_t, json>> records;
  for (const auto& [key, value] : golden.items()) {
    const size_t hash = key.find('#');
    records[key.substr(0, hash)][hash == std::string::npos ? 0 : std::stoul(key.substr(hash + 1))] = value;
  }
  size_t compared = 0;
  for (const auto& [name, wanted] : records) {
    const std::string path = absl::StrCat(SharedDir(), "/data/crystals/", name);
    if (!std::filesystem::exists(path)) continue;
    const Found found = ReadAny(path);
    for (const auto& [record, value] : wanted) {
      SCOPED_TRACE(absl::StrCat(name, "#", record));
      ASSERT_GT(found.size(), record);
      ASSERT_OK(found[record]);
      ExpectStructure(*found[record], value);
      ++compared;
    }
    EXPECT_EQ(found.size(), wanted.size()) << name;
  }
  EXPECT_GT(compared, 500);
}

}  // namespace
}  // namespace stoker::ingest
