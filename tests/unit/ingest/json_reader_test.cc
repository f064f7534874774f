// SPDX-License-Identifier: Apache-2.0
#include "server/ingest/json_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/ingest/structures.h"

namespace stoker::ingest {
namespace {

using ::stoker::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kSalt[] =
    R"({"jid": "JVASP-1", "gap": 8.5, "n": 3, "metal": false, "none": "na", "null": null, "dos": [1, 2.5, 3],
        "atoms": {"lattice_mat": [[4, 0, 0], [0, 4.0, 0], [0, 0, 4]], "coords": [[0, 0, 0], [0.5, 0.5, 0.5]],
                  "elements": ["Na", "Cl"], "abc": [4, 4, 4], "angles": [90, 90, 90], "cartesian": false,
                  "props": ["", ""]}})";

absl::StatusOr<Structure> Jarvis(absl::string_view record, const RecordKeys& keys = {}) {
  JsonReader reader;
  return Checked(reader.ReadJarvis(record, "a.json: record 4", keys), "a.json: record 4");
}

TEST(JarvisReader, Record_IsReadAsItStands) {
  ASSERT_OK_AND_ASSIGN(const Structure salt, Jarvis(kSalt, {.id = "jid", .targets = {"gap", "n", "metal"}}));
  EXPECT_EQ(salt.id, "JVASP-1");
  EXPECT_THAT(salt.atomic_numbers, ElementsAre(11, 17));
  EXPECT_THAT(salt.lattice, ElementsAre(4, 0, 0, 0, 4, 0, 0, 0, 4));
  EXPECT_THAT(salt.frac_coords, ElementsAre(0, 0, 0, 0.5, 0.5, 0.5));
  EXPECT_THAT(salt.targets, ElementsAre(8.5, 3, 0));
}

TEST(JarvisReader, Cartesian_BecomesFractions) {
  ASSERT_OK_AND_ASSIGN(
      const Structure salt,
      Jarvis(absl::StrReplaceAll(kSalt, {{"0.5", "2"}, {"\"cartesian\": false", "\"cartesian\": true"}})));
  EXPECT_TRUE(salt.cartesian);
  EXPECT_THAT(salt.coords, ElementsAre(0, 0, 0, 2, 2, 2));
  EXPECT_THAT(salt.frac_coords, ElementsAre(0, 0, 0, 0.5, 0.5, 0.5));
}

TEST(JarvisReader, TargetsThatAreMissing_AreNoNumbers) {
  ASSERT_OK_AND_ASSIGN(const Structure salt, Jarvis(kSalt, {.targets = {"none", "null"}}));
  EXPECT_TRUE(std::isnan(salt.targets[0]) && std::isnan(salt.targets[1]));
  ASSERT_OK_AND_ASSIGN(const Structure dos, Jarvis(kSalt, {.targets = {"dos"}}));
  EXPECT_THAT(dos.targets, ElementsAre(1, 2.5, 3));
}

TEST(JarvisReader, IdKey_IsTheFirstThatARecordHas) {
  JsonReader reader;
  EXPECT_EQ(reader.FindIdKey(kSalt), "jid");
  EXPECT_EQ(reader.FindIdKey(R"({"mp_id": "mp-1", "id": 7})"), "id");
  EXPECT_EQ(reader.FindIdKey(R"({"name": 1})"), "");
  EXPECT_EQ(reader.FindIdKey("["), "");
  EXPECT_EQ(reader.ReadId("17"), "17");
  EXPECT_EQ(reader.ReadId("\"mb-1\""), "mb-1");
  EXPECT_EQ(reader.ReadId("[1]"), "");
  EXPECT_EQ(Jarvis(kSalt, {.id = "n"})->id, "3");
}

TEST(JarvisReader, WhatIsWrong_IsNamed) {
  const struct {
    const char *from, *to, *message;
  } cases[] = {
      {"\"atoms\"", "\"atom\"", "no atoms: the record has no 'atoms'"},
      {"lattice_mat", "lattice", "no array 'lattice_mat'"},
      {", [0, 0, 4]]", "]", "wrong lattice: there must be three vectors"},
      {"[0, 4.0, 0]", "[0, 4.0]", "not three numbers: a lattice vector"},
      {"[0, 4.0, 0]", "[0, \"4\", 0]", "not a number: in a lattice vector"},
      {"[0, 4.0, 0]", "[4, 0, 0]", "singular lattice"},
      {"[0.5, 0.5, 0.5]", "[0.5, 0.5]", "not three numbers: atom 2"},
      {"[0.5, 0.5, 0.5]", "[0.5, null, 0.5]", "not a number: in atom 2"},
      {"[0.5, 0.5, 0.5]", "[0.5, 1e300, 0.5]", "coordinate out of range"},
      {"[0.5, 0.5, 0.5]", "[1, -2, 3]", "atoms on the same spot: 1 (Na) and 2 (Cl)"},
      {", [0.5, 0.5, 0.5]", "", "wrong counts: 2 elements and 1 coordinates"},
      {"\"Cl\"", "\"Xx\"", "unknown element: 'Xx' of atom 2"},
      {"\"Cl\"", "17", "unknown element:  of atom 2"},
      {"\"elements\"", "\"symbols\"", "no array 'elements'"},
      {"\"cartesian\": false", "\"cartesian\": \"no\"", "'cartesian' is neither"},
      {"}}", "", "not JSON"},
      {"{\"jid\"", "[{\"jid\"", "not JSON"},
      {"8.5", "8.5.5", "not JSON"},
  };
  for (const auto& broken : cases) {
    SCOPED_TRACE(broken.message);
    EXPECT_THAT(Jarvis(absl::StrReplaceAll(kSalt, {{broken.from, broken.to}})),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         ::testing::AllOf(HasSubstr("reading a.json: record 4: "), HasSubstr(broken.message))));
  }
  EXPECT_THAT(Jarvis(kSalt, {.id = "mp_id"}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("missing id: no text or number 'mp_id'")));
  EXPECT_THAT(Jarvis(kSalt, {.targets = {"hse_gap"}}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("missing target: no key 'hse_gap'")));
  EXPECT_THAT(Jarvis(kSalt, {.targets = {"jid"}}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("wrong target: 'jid' is no number")));
  EXPECT_THAT(Jarvis(kSalt, {.targets = {"gap", "dos"}}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("wrong target: 'dos' is an array")));
}

TEST(JarvisReader, CutAnywhere_IsAnError) {
  const std::string text = kSalt;
  for (size_t size = 0; size < text.size(); ++size) {
    EXPECT_THAT(Jarvis(text.substr(0, size)), StatusIs(absl::StatusCode::kInvalidArgument)) << size;
  }
}

constexpr char kRow[] =
    R"([{"@class": "Structure", "lattice": {"matrix": [[4, 0, 0], [0, 4, 0], [0, 0, 4]], "a": 4},
         "sites": [{"species": [{"element": "Na", "oxidation_state": 1, "occu": 1}], "abc": [0, 0, 0]},
                   {"species": [{"element": "Cl", "occu": 1.0}], "abc": [0.5, 0.5, 0.5], "xyz": [2, 2, 2]}]},
        1.5, true])";

absl::StatusOr<Structure> Matbench(absl::string_view row, std::vector<std::string> targets = {"gap"}) {
  JsonReader reader;
  return Checked(reader.ReadMatbench(row, "m.json.gz: record 0", {"structure", "gap", "is_metal"},
                                     {.targets = std::move(targets)}));
}

TEST(MatbenchReader, Row_IsReadAsItStands) {
  ASSERT_OK_AND_ASSIGN(const Structure salt, Matbench(kRow, {"is_metal", "gap"}));
  EXPECT_THAT(salt.atomic_numbers, ElementsAre(11, 17));
  EXPECT_THAT(salt.frac_coords, ElementsAre(0, 0, 0, 0.5, 0.5, 0.5));
  EXPECT_THAT(salt.lattice, ElementsAre(4, 0, 0, 0, 4, 0, 0, 0, 4));
  EXPECT_THAT(salt.targets, ElementsAre(1, 1.5));
}

TEST(MatbenchReader, WhatIsWrong_IsNamed) {
  const struct {
    const char *from, *to, *message;
  } cases[] = {
      {"\"occu\": 1.0", "\"occu\": 0.5", "fractional occupancy: site 2 has 1 species"},
      {"{\"element\": \"Cl\", ", "{\"element\": \"Br\", \"occu\": 0.5}, {\"element\": \"Cl\", ",
       "fractional occupancy: site 2 has 2 species"},
      {"\"occu\": 1.0", "\"occ\": 1", "fractional occupancy: site 2"},
      {"[{\"element\": \"Cl\", \"occu\": 1.0}]", "[]", "fractional occupancy: site 2 has 0 species"},
      {"\"Cl\"", "\"Xx\"", "unknown element: 'Xx' of atom 2"},
      {"\"element\": \"Cl\", ", "", "unknown element: site 2 has none"},
      {"\"abc\": [0.5, 0.5, 0.5], ", "", "no coordinates: site 2"},
      {"\"lattice\"", "\"cell\"", "no lattice in the structure"},
      {"\"matrix\"", "\"m\"", "no array 'matrix'"},
      {"\"sites\"", "\"places\"", "no array 'sites'"},
      {"1.5, true", "1.5", "wrong counts: the row does not have the 3 values"},
      {"1.5, true", "\"wide\", true", "wrong target: 'gap' is no number"},
  };
  for (const auto& broken : cases) {
    SCOPED_TRACE(broken.message);
    EXPECT_THAT(Matbench(absl::StrReplaceAll(kRow, {{broken.from, broken.to}})),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(broken.message)));
  }
  EXPECT_THAT(Matbench("[1, 2, 3]"), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("no structure")));
  EXPECT_THAT(Matbench(kRow, {"volume"}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("missing target: no column 'volume'")));
}

}  // namespace
}  // namespace stoker::ingest
