// SPDX-License-Identifier: Apache-2.0
// Real crystal files of every format, against what the field's own parsers read from them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/ingest/element.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/ingest/crystal_data.h"

namespace stoker::ingest {
namespace {

using nlohmann::json;

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
