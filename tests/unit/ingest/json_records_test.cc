// SPDX-License-Identifier: Apache-2.0
#include "server/ingest/json_records.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"
#include "tests/unit/ingest/structures.h"

namespace stoker::ingest {
namespace {

using ::stoker::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class ScanJsonTest : public ::testing::Test {
 protected:
  // "key[index]=text" of each element.
  absl::StatusOr<std::vector<std::string>> Scan(const std::string& bytes, const JsonStart& start = {}) {
    const std::string path = dir_.Write("a.json", bytes);
    std::vector<std::string> found;
    const absl::Status status = ScanJson(path, start, [&](const JsonElement& e) -> absl::StatusOr<bool> {
      found.push_back(absl::StrCat(e.key, "[", e.index, "]=", e.text));
      if (bytes[0] != '\x1f') {
        EXPECT_EQ(bytes.substr(e.begin, e.end - e.begin).substr(0, 1), e.text.substr(0, 1));
      }
      return e.text != "\"stop\"";
    });
    if (!status.ok()) return status;
    return found;
  }
  testing::TempDir dir_;
};

TEST_F(ScanJsonTest, Array_IsCutAtItsElements) {
  EXPECT_THAT(*Scan("[]"), ElementsAre());
  EXPECT_THAT(*Scan("\xEF\xBB\xBF [ 1 , {\"a\": [1, {}], \"b\": \"]},[\\\"\"} ,\"x\\\\\" ,[2,3]\n]\n"),
              ElementsAre("[0]=1", "[1]={\"a\": [1, {}], \"b\": \"]},[\\\"\"}", "[2]=\"x\\\\\"", "[3]=[2,3]"));
}

TEST_F(ScanJsonTest, Object_GivesTheElementsOfItsArrays) {
  EXPECT_THAT(
      *Scan("{\"index\": [7, \"b\"], \"name\": \"[x,{\", \"n\": 1.5, \"o\": {\"data\": [1]}, \"data\":[[1],[2]], "
            "\"empty\": []}"),
      ElementsAre("index[0]=7", "index[1]=\"b\"", "data[0]=[1]", "data[1]=[2]"));
}

TEST_F(ScanJsonTest, WordsOfPythonForNoNumber_AreNull) {
  EXPECT_THAT(*Scan("[{\"NaN\": NaN, \"x\": [-Infinity, Infinity], \"s\": \"a \\\" NaN\"}]"),
              ElementsAre("[0]={\"NaN\": null, \"x\": [null, null], \"s\": \"a \\\" NaN\"}"));
}

TEST_F(ScanJsonTest, Start_GoesOnAtAnElement) {
  EXPECT_THAT(*Scan("[{\"a\": 1}, 2, 3]", {.offset = 11, .index = 1}), ElementsAre("[1]=2", "[2]=3"));
}

TEST_F(ScanJsonTest, Sink_MayStop) { EXPECT_THAT(*Scan("[1, \"stop\", 3"), ElementsAre("[0]=1", "[1]=\"stop\"")); }

TEST_F(ScanJsonTest, Gzip_IsUnpackedOnTheWay) {
  std::string text = "[";
  for (int i = 0; i < 200000; ++i) absl::StrAppend(&text, i == 0 ? "" : ",", i);
  const std::string packed = Gzip(text + "]");
  const auto found = Scan(packed);
  ASSERT_OK(found);
  EXPECT_EQ(found->size(), 200000);
  EXPECT_EQ(found->back(), "[199999]=199999");
  EXPECT_THAT(Scan(packed.substr(0, packed.size() / 2)),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("the gzip stream ends early")));
  std::string broken = packed;
  for (size_t i = 20; i < 60; ++i) broken[i] = '\xff';
  EXPECT_THAT(Scan(broken), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("does not inflate")));
}

TEST_F(ScanJsonTest, WhatIsNoDocument_IsNamedWithItsByte) {
  const struct {
    const char *text, *message;
  } cases[] = {
      {"", "cut off"},
      {"  ", "cut off"},
      {"[", "cut off"},
      {"[1", "cut off"},
      {"[\"a]", "cut off"},
      {"[{]", "cut off"},
      {"[1] 2", "text after the end of the document (at byte 4)"},
      {"[1}", "a bracket that nothing opened (at byte 2)"},
      {"[1,,2]", "an element without a value (at byte 3)"},
      {"[1,]", "an element without a value (at byte 3)"},
      {"[,1]", "an element without a value (at byte 1)"},
      {"1", "not a JSON array or object (at byte 0)"},
      {"jid,gap\n", "not a JSON array or object"},
      {"{\"a\" 1}", "no colon after a key"},
      {"{a: 1}", "no key where one should be"},
      {"{\"a\": 1", "cut off"},
  };
  for (const auto& broken : cases) {
    SCOPED_TRACE(broken.text);
    EXPECT_THAT(Scan(broken.text), StatusIs(absl::StatusCode::kInvalidArgument,
                                            ::testing::AllOf(HasSubstr(broken.message), HasSubstr("a.json"))));
  }
}

}  // namespace
}  // namespace stoker::ingest
