// SPDX-License-Identifier: Apache-2.0
#include "server/ingest/npy_header.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/support/status_matchers.h"
#include "tests/unit/ingest/numpy_files.h"

namespace stoker::ingest {
namespace {

using ::stoker::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

absl::StatusOr<NpyHeader> Parse(const std::string& file) { return ParseNpyHeader(file, file.size(), "f.npy"); }

void ExpectBad(const std::string& file, const std::string& reason) {
  EXPECT_THAT(Parse(file), StatusIs(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr("f.npy"), HasSubstr(reason))));
}

TEST(ParseNpyHeaderTest, AllVersions_AreRead) {
  for (const int version : {1, 2, 3}) {
    for (const size_t align : {16, 64}) {
      ASSERT_OK_AND_ASSIGN(const NpyHeader header,
                           Parse(NpyBytes(NpyDict(">f8", "(2, 3)"), std::string(48, 'x'), version, align)));
      EXPECT_EQ(header.kind, 'f');
      EXPECT_EQ(header.item_bytes, 8u);
      EXPECT_TRUE(header.big_endian);
      EXPECT_FALSE(header.fortran_order);
      EXPECT_THAT(header.shape, ElementsAre(2, 3));
      EXPECT_EQ(header.data_offset % align, 0u);
      EXPECT_EQ(header.row_bytes(), 24u);
    }
  }
}

TEST(ParseNpyHeaderTest, KeysInAnyOrderAndPython2Shapes_AreRead) {
  const std::string header = "{\"shape\":(4L,),'fortran_order':True,'descr':'|u1'}";
  ASSERT_OK_AND_ASSIGN(const NpyHeader parsed, Parse(NpyBytes(header, "abcd")));
  EXPECT_THAT(parsed.shape, ElementsAre(4));
  EXPECT_TRUE(parsed.fortran_order);
  EXPECT_EQ(parsed.row_items(), 1u);
}

TEST(ParseNpyHeaderTest, Text_CountsBytes) {
  ASSERT_OK_AND_ASSIGN(const NpyHeader header, Parse(Npy("<U3", "(1,)", std::string(12, 'x'))));
  EXPECT_EQ(header.item_bytes, 12u);
  EXPECT_FALSE(header.is_number());
}

TEST(ParseNpyHeaderTest, ElementTypesThatAreNotNumbers_AreRefusedByName) {
  ExpectBad(Npy("|O", "(1,)", "x"), "'|O' is Python objects (a pickle), which are never loaded");
  ExpectBad(Npy("<c8", "(1,)", "x"), "'<c8' is not supported");
  ExpectBad(Npy("<M8[s]", "(1,)", "x"), "'<M8[s]'");
  ExpectBad(Npy("<f3", "(1,)", "x"), "'<f3' is not known");
  ExpectBad(Npy("<i16", "(1,)", "x"), "not known");
  ExpectBad(Npy("<U0", "(1,)", "x"), "no size");
  ExpectBad(Npy("", "(1,)", "x"), "not known");
  ExpectBad(NpyBytes("{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (1,)}", "x"), "is a structure");
}

TEST(ParseNpyHeaderTest, SizesThatDisagree_AreRefused) {
  ExpectBad(Npy("<f8", "(2, 3)", std::string(47, 'x')), "shape (2, 3) needs 48 bytes, the file has 47");
  ExpectBad(Npy("<f8", "(2, 3)", std::string(49, 'x')), "the file has 49");
  ExpectBad(Npy("<f4", "(1152921504606846976,)", ""), "needs 4611686018427387904 bytes");
  ExpectBad(Npy("<f4", "(1152921504606846976, 1152921504606846976)", ""), "beyond any file");
  ExpectBad(Npy("<f4", "(99999999999999999999999,)", ""), "malformed header");
  ExpectBad(Npy("<f4", "(0, 5)", ""), "no elements");
  ExpectBad(Npy("<f4", "()", "abcd"), "a single number");
}

TEST(ParseNpyHeaderTest, MalformedHeaders_AreRefused) {
  ExpectBad("hello", "wrong magic");
  ExpectBad("", "wrong magic");
  ExpectBad("\x93NUMPY", "cut off");
  ExpectBad(std::string("\x93NUMPY\x02\x00\x05", 9), "cut off");
  ExpectBad(std::string("\x93NUMPY\x04\x00\x00\x00", 10), "version 4.0");
  ExpectBad(std::string("\x93NUMPY\x01\x00\x05\x00{", 11), "cut off");
  ExpectBad(std::string("\x93NUMPY\x02\x00\xFF\xFF\xFF\xFF", 12), "a header of 4294967295 bytes");
  for (const char* header :
       {"", "{", "{}", "[]", "{'descr': '<f4'}", "{'descr': '<f4', 'fortran_order': False, 'shape': (1,",
        "{'descr': '<f4', 'fortran_order': 1, 'shape': (1,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'more': 1}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1,)} x"}) {
    ExpectBad(NpyBytes(header, "abcd"), "malformed header");
  }
  std::string many = "(";
  for (int i = 0; i < 40; ++i) many += "1,";
  ExpectBad(Npy("|u1", many + ")", "x"), "malformed header");
}

}  // namespace
}  // namespace stoker::ingest
