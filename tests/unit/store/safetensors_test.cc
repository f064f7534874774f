// SPDX-License-Identifier: Apache-2.0
#include "shared/store/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <string.h>

#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace stoker::store {
namespace {

using ::stoker::testing::StatusIs;
using ::stoker::testing::TempDir;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

std::string FileBytes(const std::string& header, const std::string& data) {
  const uint64_t size = header.size();
  std::string bytes(8, '\0');
  memcpy(bytes.data(), &size, 8);
  return bytes + header + data;
}

class SafetensorsFileTest : public ::testing::Test {
 protected:
  absl::StatusOr<SafetensorsFile> OpenBytes(const std::string& bytes) {
    return SafetensorsFile::Open(dir_.Write("x.safetensors", bytes));
  }
  absl::StatusOr<SafetensorsFile> OpenHeader(const std::string& header, const std::string& data = "") {
    return OpenBytes(FileBytes(header, data));
  }
  void ExpectDamaged(const std::string& header, const std::string& data, const std::string& reason) {
    EXPECT_THAT(OpenHeader(header, data),
                StatusIs(absl::StatusCode::kDataLoss, ::testing::AllOf(HasSubstr("x.safetensors"), HasSubstr(reason))));
  }

  TempDir dir_;
};

TEST_F(SafetensorsFileTest, WrittenFile_ReadsBack) {
  const std::string path = dir_.File("a.safetensors");
  const std::vector<double> x = {1, 2, 3, 4, 5, 6};
  const std::vector<int32_t> y = {-7};
  ASSERT_OK_AND_ASSIGN(SafetensorsWriter writer, SafetensorsWriter::Create(path, {{"who", "\"me\"\n"}},
                                                                           {{"x", v1::DTYPE_F64, {2, 3}},
                                                                            {"e", v1::DTYPE_F32, {0, 5}},
                                                                            {"y", v1::DTYPE_I32, {}},
                                                                            {"b", v1::DTYPE_BF16, {2}}}));
  ASSERT_OK(writer.Append(absl::MakeConstSpan(x).first(4)));
  ASSERT_OK(writer.Append(absl::MakeConstSpan(x).subspan(4)));
  ASSERT_OK(writer.Append(absl::MakeConstSpan(y)));
  ASSERT_OK(writer.AppendBytes({1, 2, 3, 4}));
  EXPECT_FALSE(std::filesystem::exists(path));
  ASSERT_OK(writer.Finish());

  ASSERT_OK_AND_ASSIGN(const SafetensorsFile file, SafetensorsFile::Open(path));
  EXPECT_THAT(file.metadata(), ElementsAre(Pair("who", "\"me\"\n")));
  ASSERT_OK_AND_ASSIGN(const absl::Span<const double> x_read, file.Get<double>("x"));
  EXPECT_THAT(x_read, ElementsAre(1, 2, 3, 4, 5, 6));
  ASSERT_OK_AND_ASSIGN(const absl::Span<const int32_t> y_read, file.Get<int32_t>("y"));
  EXPECT_THAT(y_read, ElementsAre(-7));
  ASSERT_OK_AND_ASSIGN(const absl::Span<const float> e_read, file.Get<float>("e"));
  EXPECT_TRUE(e_read.empty());
  ASSERT_OK_AND_ASSIGN(const absl::Span<const uint8_t> b_read, file.Bytes("b", v1::DTYPE_BF16));
  EXPECT_THAT(b_read, ElementsAre(1, 2, 3, 4));
  ASSERT_NE(file.Find("x"), nullptr);
  EXPECT_THAT(file.Find("x")->shape, ElementsAre(2, 3));
  ASSERT_OK_AND_ASSIGN(const uint64_t offset, file.FileOffset("x"));
  EXPECT_EQ(offset % kDataAlignment, 0u);
}

TEST_F(SafetensorsFileTest, MissingFile_IsNotFound) {
  EXPECT_THAT(SafetensorsFile::Open(dir_.File("none")), StatusIs(absl::StatusCode::kNotFound, HasSubstr("none")));
}

TEST_F(SafetensorsFileTest, WrongDtypeOrName_IsDataLoss) {
  ASSERT_OK_AND_ASSIGN(const SafetensorsFile file,
                       OpenHeader(R"({"x":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})", "ab"));
  EXPECT_THAT(file.Get<double>("x"), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("x is U8, not F64")));
  EXPECT_THAT(file.Get<double>("z"), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("no tensor z")));
  EXPECT_THAT(file.FileOffset("z"), StatusIs(absl::StatusCode::kNotFound));
}

TEST_F(SafetensorsFileTest, MisalignedTensor_IsDataLossWhenRead) {
  const std::string header = R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                             R"("x":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}})";
  ASSERT_OK_AND_ASSIGN(const SafetensorsFile file, OpenHeader(header, "abcde"));
  EXPECT_THAT(file.Get<float>("x"), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("not aligned")));
}

TEST_F(SafetensorsFileTest, HeaderBeyondFile_IsDataLoss) {
  EXPECT_THAT(OpenBytes("abc"), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("no safetensors header")));
  EXPECT_THAT(OpenBytes(std::string(8, '\xFF') + "{}"), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("header of")));
}

TEST_F(SafetensorsFileTest, MalformedHeader_IsDataLoss) {
  ExpectDamaged("[1]", "", "not a JSON object");
  ExpectDamaged("{", "", "not a JSON object");
  ExpectDamaged(std::string(100000, '['), "", "not a JSON object");
  ExpectDamaged(R"({"__metadata__":{"a":1}})", "", "not a string");
  ExpectDamaged(R"({"x":7})", "", "tensor x");
  ExpectDamaged(R"({"x":{"dtype":"Q9","shape":[1],"data_offsets":[0,1]}})", "a", "Q9");
}

TEST_F(SafetensorsFileTest, ImpossibleSizes_AreDataLoss) {
  ExpectDamaged(R"({"x":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}})", "a", "shape");
  ExpectDamaged(R"({"x":{"dtype":"F64","shape":[1152921504606846976,16],"data_offsets":[0,0]}})", "",
                "do not make 0 bytes");
  ExpectDamaged(R"({"x":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}})", "ab", "not in the 2 bytes");
  ExpectDamaged(R"({"x":{"dtype":"U8","shape":[1],"data_offsets":[1,0]}})", "ab", "data_offsets");
  ExpectDamaged(R"({"x":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})", "ab", "does not begin at 0");
  ExpectDamaged(R"({"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", "ab", "tensors end at 1 of 2");
}

TEST(SafetensorsWriterTest, TooFewOrTooManyBytes_IsInvalid) {
  TempDir dir;
  ASSERT_OK_AND_ASSIGN(SafetensorsWriter writer,
                       SafetensorsWriter::Create(dir.File("a"), {}, {{"x", v1::DTYPE_U8, {2}}}));
  EXPECT_THAT(writer.Finish(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("2 bytes are missing")));
  EXPECT_THAT(writer.AppendBytes({1, 2, 3}), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("more bytes")));
}

TEST(SafetensorsWriterTest, Abandoned_LeavesNothing) {
  TempDir dir;
  {
    ASSERT_OK_AND_ASSIGN(SafetensorsWriter writer,
                         SafetensorsWriter::Create(dir.File("a"), {}, {{"x", v1::DTYPE_U8, {2}}}));
    SafetensorsWriter moved = std::move(writer);
    ASSERT_OK(moved.AppendBytes({1}));
  }
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
}

TEST(SafetensorsWriterTest, BadTensors_AreInvalid) {
  TempDir dir;
  const auto create = [&](std::vector<tensor::TensorSpec> specs) {
    return SafetensorsWriter::Create(dir.File("a"), {}, specs).status();
  };
  EXPECT_THAT(create({{"x", v1::DTYPE_U8, {1}}, {"x", v1::DTYPE_U8, {1}}}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("there twice")));
  EXPECT_THAT(create({{"x", v1::DTYPE_F64, {INT64_MAX, 2}}}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("impossible")));
  EXPECT_THAT(create({{"x", v1::DTYPE_UNSPECIFIED, {1}}}), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
}

TEST(OverwriteTensorsTest, WholeTensor_IsReplaced) {
  TempDir dir;
  const std::string path = dir.File("a");
  ASSERT_OK_AND_ASSIGN(SafetensorsWriter writer,
                       SafetensorsWriter::Create(path, {}, {{"x", v1::DTYPE_U8, {2}}, {"y", v1::DTYPE_U8, {2}}}));
  ASSERT_OK(writer.AppendBytes({1, 2, 3, 4}));
  ASSERT_OK(writer.Finish());
  const std::vector<uint8_t> bytes = {8, 9};
  ASSERT_OK(OverwriteTensors(path, {{"y", absl::MakeConstSpan(bytes)}}));
  ASSERT_OK_AND_ASSIGN(const SafetensorsFile file, SafetensorsFile::Open(path));
  ASSERT_OK_AND_ASSIGN(const absl::Span<const uint8_t> x, file.Get<uint8_t>("x"));
  ASSERT_OK_AND_ASSIGN(const absl::Span<const uint8_t> y, file.Get<uint8_t>("y"));
  EXPECT_THAT(x, ElementsAre(1, 2));
  EXPECT_THAT(y, ElementsAre(8, 9));
  EXPECT_THAT(OverwriteTensors(path, {{"y", absl::MakeConstSpan(bytes).first(1)}}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("another size")));
}

}  // namespace
}  // namespace stoker::store
