// SPDX-License-Identifier: Apache-2.0
#include "server/ingest/npy_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "tests/support/status_matchers.h"
#include "tests/unit/ingest/ingest_harness.h"
#include "tests/unit/ingest/numpy_files.h"

namespace stoker::ingest {
namespace {

using ::stoker::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Options = v1::IngestOptions;
using StorePtr = std::shared_ptr<const store::TimeSeriesStore>;

class NpyReaderTest : public ::testing::Test {
 protected:
  absl::StatusOr<StorePtr> Read(const std::string& file, const Options& options = {}, const char* name = "x.npy") {
    return harness_.Open({harness_.Write(name, file)}, options);
  }
  void ExpectBad(const std::string& file, const Options& options, const std::string& reason,
                 const char* name = "x.npy") {
    EXPECT_THAT(Read(file, options, name),
                StatusIs(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr(name), HasSubstr(reason))));
  }

  IngestHarness harness_;
};

template <typename T>
class NpyTypesTest : public NpyReaderTest {};

using NumberTypes =
    ::testing::Types<float, double, int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t>;
TYPED_TEST_SUITE(NpyTypesTest, NumberTypes);

TYPED_TEST(NpyTypesTest, BothByteOrdersAndBothMemoryOrders_GiveTheSame) {
  const char kind = std::is_floating_point_v<TypeParam> ? 'f' : std::is_signed_v<TypeParam> ? 'i' : 'u';
  const auto extreme = static_cast<double>(std::numeric_limits<TypeParam>::lowest());
  std::vector<TypeParam> c_order = {0, 1, 2, 3, 4,  5,
                                    6, 7, 8, 9, 10, std::numeric_limits<TypeParam>::lowest()};  // (2, 2, 3)
  std::vector<TypeParam> f_order;
  for (const size_t t : {0, 1, 2}) {
    for (const size_t c : {0, 1}) {
      for (const size_t n : {0, 1}) f_order.push_back(c_order[n * 6 + c * 3 + t]);
    }
  }
  for (const bool big : {false, true}) {
    for (const bool fortran : {false, true}) {
      const std::string descr = absl::StrCat(big ? ">" : "<", std::string(1, kind), sizeof(TypeParam));
      ASSERT_OK_AND_ASSIGN(const StorePtr store,
                           this->Read(Npy(descr, "(2, 2, 3)", ItemBytes(fortran ? f_order : c_order, big), fortran)));
      EXPECT_EQ(store->samples(), 2u);
      EXPECT_THAT(Channel(*store, 0, 0), ElementsAre(0, 1, 2)) << descr << fortran;
      EXPECT_THAT(Channel(*store, 0, 1), ElementsAre(3, 4, 5)) << descr << fortran;
      EXPECT_THAT(Channel(*store, 1, 1), ElementsAre(9, 10, extreme)) << descr << fortran;
      const bool single = kind == 'f' && sizeof(TypeParam) == 4;
      EXPECT_EQ(store->manifest().time_series().value_dtype(), single ? "F32" : "F64");
      EXPECT_THAT(store->SampleName(1), HasSubstr("x.npy: record 1"));
    }
  }
}

TEST_F(NpyReaderTest, HalfFloatsAndBooleans_AreRead) {
  ASSERT_OK_AND_ASSIGN(StorePtr store,
                       Read(Npy("<f2", "(1, 5)", ItemBytes<uint16_t>({0x3C00, 0xC000, 0x0001, 0x7BFF, 0x8000}))));
  EXPECT_THAT(Channel(*store, 0, 0), ElementsAre(1, -2, std::ldexp(1, -24), 65504, 0));
  EXPECT_EQ(store->manifest().time_series().value_dtype(), "F32");
  ASSERT_OK_AND_ASSIGN(store, Read(Npy("|b1", "(1, 3)", ItemBytes<uint8_t>({1, 0, 1}))));
  EXPECT_THAT(Channel(*store, 0, 0), ElementsAre(1, 0, 1));
  EXPECT_THAT(
      Read(Npy("<f2", "(1, 2)", ItemBytes<uint16_t>({0x7C00, 0}))),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("x.npy: record 0, point 0: channel '0' is infinite")));
}

TEST_F(NpyReaderTest, LayoutNtc_PutsTimeFirst) {
  Options options;
  options.set_layout(Options::NTC);
  ASSERT_OK_AND_ASSIGN(const StorePtr store,
                       Read(Npy("<f4", "(1, 3, 2)", ItemBytes<float>({1, 10, 2, 20, 3, 30})), options));
  EXPECT_EQ(store->channels(), 2u);
  EXPECT_THAT(Channel(*store, 0, 0), ElementsAre(1, 2, 3));
  EXPECT_THAT(Channel(*store, 0, 1), ElementsAre(10, 20, 30));
}

TEST_F(NpyReaderTest, TwoDimensions_AreOneChannel) {
  Options options;
  options.set_layout(Options::NTC);  // does not matter here
  ASSERT_OK_AND_ASSIGN(const StorePtr store, Read(Npy("<f8", "(2, 2)", ItemBytes<double>({1, 2, 3, 4})), options));
  EXPECT_THAT(Channel(*store, 1, 0), ElementsAre(3, 4));
}

TEST_F(NpyReaderTest, LargeArray_IsCutIntoUnits) {
  std::vector<float> values(6000 * 1000);
  std::iota(values.begin(), values.end(), 0.0f);
  const std::string file = Npy("<f4", "(6000, 1000)", ItemBytes(values));
  ASSERT_OK_AND_ASSIGN(const StorePtr store, Read(file));
  EXPECT_GT(store->manifest().shards_size(), 1);
  ASSERT_EQ(store->samples(), 6000u);
  for (uint64_t i = 0; i < 6000; ++i) ASSERT_EQ(store->Sample(i)->f32[0], static_cast<float>(i * 1000));
  EXPECT_THAT(store->SampleName(5999), HasSubstr("record 5999"));
}

TEST_F(NpyReaderTest, OtherDimensions_AreRefused) {
  ExpectBad(Npy("<f4", "(3,)", std::string(12, 'x')), {}, "shape (3) has 1 dimensions");
  ExpectBad(Npy("<f4", "(1, 1, 1, 1)", "xxxx"), {}, "4 dimensions");
  ExpectBad(Npy("<U1", "(1, 1)", "xxxx"), {}, "the data are text");
  ExpectBad(Npy("|u1", "(1, 2000000, 1)", std::string(2000000, 'x')), {}, "2000000 channels");
}

TEST_F(NpyReaderTest, NotANumber_NamesTheRecord) {
  const std::string file = Npy("<f8", "(2, 2, 2)", ItemBytes<double>({1, 2, 3, 4, 5, 6, 7, std::nan("")}));
  ExpectBad(file, {}, "x.npy: record 1, point 1: channel '1' has a missing value");
  Options options;
  options.set_missing(Options::MISSING_LINEAR);
  ASSERT_OK_AND_ASSIGN(const StorePtr store, Read(file, options));
  EXPECT_THAT(Channel(*store, 1, 1), ElementsAre(7, 7));
}

TEST_F(NpyReaderTest, BrokenFiles_AreRefused) {
  ExpectBad("", {}, "empty");
  ExpectBad("not numpy", {}, "wrong magic");
  ExpectBad(Npy("<f4", "(2, 2)", "short"), {}, "needs 16 bytes, the file has 5");
  ExpectBad(Npy("|O", "(2, 2)", "pickle"), {}, "Python objects");
  ExpectBad(Npy("<f4", "(1073741824, 1073741824)", ""), {}, "needs 4611686018427387904 bytes");
}

TEST_F(NpyReaderTest, TargetFile_GivesClassesOrValues) {
  const std::string data = Npy("<f4", "(2, 2)", ItemBytes<float>({1, 2, 3, 4}));
  Options options;
  options.set_target_array("y.npy");  // beside the data
  harness_.Write("y.npy", Npy("<i8", "(2,)", ItemBytes<int64_t>({10, -9})));
  ASSERT_OK_AND_ASSIGN(StorePtr store, Read(data, options));
  EXPECT_THAT(ClassLabels(store->manifest()), ElementsAre("-9", "10"));
  EXPECT_EQ(store->Sample(0)->class_id, 1);
  options.set_target(Options::TARGET_VALUE);
  ASSERT_OK_AND_ASSIGN(store, Read(data, options));
  EXPECT_THAT(store->Sample(1)->values, ElementsAre(-9));

  options.clear_target();
  harness_.Write("y.npy", Npy("<f8", "(2, 2)", ItemBytes<double>({0.5, 1, 2, 3}), /*fortran=*/true));
  ASSERT_OK_AND_ASSIGN(store, Read(data, options));
  EXPECT_EQ(store->manifest().target_width(), 2u);
  EXPECT_THAT(store->Sample(0)->values, ElementsAre(0.5, 2));
  EXPECT_THAT(store->Sample(1)->values, ElementsAre(1, 3));
  options.set_target(Options::TARGET_CLASS);
  EXPECT_THAT(Read(data, options),
              StatusIs(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr("y.npy"), HasSubstr("(2, 2)"))));
  harness_.Write("y.npy", Npy("<f8", "(2, 1)", ItemBytes<double>({0.5, 1})));
  ASSERT_OK_AND_ASSIGN(store, Read(data, options));
  EXPECT_THAT(ClassLabels(store->manifest()), ElementsAre("0.5", "1.0"));

  options.clear_target();
  harness_.Write("y.npy", Npy("|b1", "(2,)", ItemBytes<uint8_t>({1, 0})));
  ASSERT_OK_AND_ASSIGN(store, Read(data, options));
  EXPECT_THAT(ClassLabels(store->manifest()), ElementsAre("False", "True"));
  harness_.Write("y.npy", Npy(">U2", "(2,)", ItemBytes<uint32_t>({'a', 0x20AC, 'b', 0}, true)));
  ASSERT_OK_AND_ASSIGN(store, Read(data, options));
  EXPECT_THAT(ClassLabels(store->manifest()), ElementsAre("a\xE2\x82\xAC", "b"));
  harness_.Write("y.npy", Npy("|S2", "(2,)", std::string("ab\0\0", 4)));
  EXPECT_THAT(Read(data, options),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("record 1: the label is empty")));
}

TEST_F(NpyReaderTest, TargetsThatDoNotFit_AreRefused) {
  const std::string data = Npy("<f4", "(2, 2)", ItemBytes<float>({1, 2, 3, 4}));
  Options options;
  options.set_target_array("y.npy");
  EXPECT_THAT(Read(data, options), StatusIs(absl::StatusCode::kNotFound, HasSubstr("y.npy")));
  harness_.Write("y.npy", Npy("<i8", "(3,)", ItemBytes<int64_t>({1, 2, 3})));
  EXPECT_THAT(Read(data, options),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("targets of shape (3) for 2 records")));
  harness_.Write("y.npy", Npy("<f8", "(2,)", ItemBytes<double>({1, std::nan("")})));
  EXPECT_THAT(Read(data, options),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("y.npy: record 1: the target is not")));
  options.Clear();
  options.set_target(Options::TARGET_CLASS);
  ExpectBad(data, options, "no array of targets");
  options.Clear();
  options.set_data_array("x");
  ExpectBad(data, options, "has no keys");
}

TEST_F(NpyReaderTest, Archive_StoredOrDeflatedWithAnySizes_IsRead) {
  const std::string x = Npy("<f8", "(2, 3)", ItemBytes<double>({1, 2, 3, 4, 5, 6}));
  const std::string y = Npy("<i4", "(2,)", ItemBytes<int32_t>({7, 8}));
  for (const bool deflate : {false, true}) {
    for (const bool zip64 : {false, true}) {
      for (const bool descriptor : {false, true}) {
        const std::string file =
            ZipBytes({{"y.npy", y, deflate, zip64, descriptor}, {"x.npy", x, deflate, zip64, descriptor}}, "a comment");
        Options options;
        options.set_target_array("y");  // so that the only other array is the data
        ASSERT_OK_AND_ASSIGN(const StorePtr store, Read(file, options, "x.npz"));
        EXPECT_THAT(Channel(*store, 1, 0), ElementsAre(4, 5, 6));
        EXPECT_THAT(ClassLabels(store->manifest()), ElementsAre("7", "8"));
        EXPECT_THAT(store->SampleName(1), HasSubstr("x.npz: record 1"));
      }
    }
  }
}

TEST_F(NpyReaderTest, ArchiveArrays_AreChosenByName) {
  const std::string file = ZipBytes({{"a.npy", Npy("<f8", "(1, 1)", ItemBytes<double>({1}))},
                                     {"b.npy", Npy("<f8", "(1, 1)", ItemBytes<double>({2}))}});
  ExpectBad(file, {}, "several arrays; choose --data-array: the arrays are a, b", "x.npz");
  Options options;
  options.set_data_array("b");
  ASSERT_OK_AND_ASSIGN(const StorePtr store, Read(file, options, "x.npz"));
  EXPECT_THAT(Channel(*store, 0, 0), ElementsAre(2));
  options.set_data_array("c");
  ExpectBad(file, options, "no array 'c'; the arrays are a, b", "x.npz");
}

TEST_F(NpyReaderTest, TargetKeyOfAnArchive_IsNeverAPath) {
  const std::string file = ZipBytes({{"x.npy", Npy("<f8", "(1, 1)", ItemBytes<double>({1}))}});
  Options options;
  options.set_target_array(harness_.Write("y.npy", Npy("<i4", "(1,)", ItemBytes<int32_t>({7}))));
  ExpectBad(file, options, "no array", "x.npz");
}

TEST_F(NpyReaderTest, BrokenArchives_AreRefused) {
  const std::string x = Npy("<f8", "(1, 2)", ItemBytes<double>({1, 2}));
  const std::string file = ZipBytes({{"x.npy", x}});
  for (size_t size = 2; size < file.size(); size += 7) ExpectBad(file.substr(0, size), {}, ".npz", "x.npz");
  std::string corrupt = file;
  corrupt[file.find(ItemBytes<double>({2}))] ^= 1;
  ExpectBad(corrupt, {}, "another checksum", "x.npz");
  std::string deflated = ZipBytes({{"x.npy", x, true}});
  deflated[45] = static_cast<char>(deflated[45] ^ 0x55);
  ExpectBad(deflated, {}, "x.npz", "x.npz");
  std::string encrypted = file;
  encrypted[file.find("PK\x01\x02") + 8] = 1;
  ExpectBad(encrypted, {}, "encrypted", "x.npz");
  std::string method = file;
  method[file.find("PK\x01\x02") + 10] = 14;
  ExpectBad(method, {}, "packed by method 14", "x.npz");
  std::string lying = ZipBytes({{"x.npy", x, true, true}});  // claims 2^60 unpacked bytes
  const size_t extra = lying.rfind("x.npy") + 5 + 4;
  lying.replace(extra, 8, Little(uint64_t{1} << 60, 8));
  ExpectBad(lying, {}, "the size of 'x.npy'", "x.npz");
  ExpectBad(ZipBytes({}), {}, "no array", "x.npz");
  ExpectBad(ZipBytes({{"x.npy", "not numpy"}}), {}, "wrong magic", "x.npz");
}

}  // namespace
}  // namespace stoker::ingest
