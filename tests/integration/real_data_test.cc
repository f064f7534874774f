// SPDX-License-Identifier: Apache-2.0
// Real files through the whole system, against sums that an independent implementation (pyts) gave for them. The files
// are not the project's to ship: the tests skip where they are not.
#include <cmath>

#include "tests/integration/fixture.h"

namespace stoker {
namespace {

using testing::IntegrationTest;
using testing::Read;
using testing::SharedFile;

struct Sums {
  double sum = 0, squares = 0;
  size_t pixels = 0;
};

template <typename T>
Sums SumsOf(absl::Span<const T> values) {
  Sums sums;
  sums.pixels = values.size();
  for (const T value : values) {
    sums.sum += static_cast<double>(value);
    sums.squares += static_cast<double>(value) * static_cast<double>(value);
  }
  return sums;
}

struct Checksum {
  const char* file;
  uint32_t image_size;
  uint64_t samples;
  double gasf_sum, gasf_squares;  // squares of NAN: not known
  double gasf_u8_sum;
  double gadf_squares;
  double gadf_u8_sum;
};

void PrintTo(const Checksum& checksum, std::ostream* out) { *out << checksum.file << " at " << checksum.image_size; }

class RealDataTest : public IntegrationTest {
 protected:
  void SetUp() override {
    if (SharedFile("data/timeseries").empty()) GTEST_SKIP() << "the real series are not on this machine";
  }

  template <typename T>
  std::map<std::string, Sums> SumsOfImages(LoaderOptions options, v1::DType dtype) {
    options.recipe.mutable_gaf()->set_dtype(dtype);
    std::map<std::string, Sums> sums;
    absl::StatusOr<Loader> loader = client().Open(options);
    EXPECT_OK(loader);
    while (loader.ok()) {
      const absl::StatusOr<std::optional<Batch>> batch = loader->Next(absl::Seconds(60));
      EXPECT_OK(batch);
      if (!batch.ok() || !batch->has_value()) break;
      for (const char* name : {"gasf", "gadf"}) {
        const absl::StatusOr<TensorView<T>> view = (*batch)->template Get<T>(name);
        EXPECT_OK(view);
        if (!view.ok()) continue;
        const Sums of_batch = SumsOf(view->data());
        sums[name].sum += of_batch.sum;
        sums[name].squares += of_batch.squares;
        sums[name].pixels += of_batch.pixels;
      }
    }
    return sums;
  }
};

class RealDataChecksumTest : public RealDataTest, public ::testing::WithParamInterface<Checksum> {};

TEST_P(RealDataChecksumTest, Images_HaveTheSumsOfPyts) {
  const Checksum& want = GetParam();
  const std::string path = SharedFile(absl::StrCat("data/timeseries/", want.file));
  if (path.empty()) GTEST_SKIP() << want.file << " is not on this machine";
  ASSERT_NO_FATAL_FAILURE(StartDaemon());
  EXPECT_EQ(Ingest("real", path).dataset().samples(), want.samples);
  LoaderOptions options = Read("real", 16);
  options.recipe.mutable_gaf()->set_image_size(want.image_size);
  const std::map<std::string, Sums> floats = SumsOfImages<float>(options, v1::DTYPE_F32);
  const double rounding = static_cast<double>(floats.at("gasf").pixels) * 1e-8;  // float32: 3e-8 a pixel, to both sides
  EXPECT_NEAR(floats.at("gasf").sum, want.gasf_sum, rounding);
  EXPECT_NEAR(floats.at("gadf").sum, 0, rounding);
  if (!std::isnan(want.gasf_squares)) {
    EXPECT_NEAR(floats.at("gasf").squares, want.gasf_squares, rounding);
  }
  EXPECT_NEAR(floats.at("gadf").squares, want.gadf_squares, rounding);
  const std::map<std::string, Sums> bytes = SumsOfImages<uint8_t>(options, v1::DTYPE_U8);
  const double off_by_one = static_cast<double>(floats.at("gasf").pixels) / 10000;
  EXPECT_NEAR(bytes.at("gasf").sum, want.gasf_u8_sum, off_by_one);
  EXPECT_NEAR(bytes.at("gadf").sum, want.gadf_u8_sum, off_by_one);
}

INSTANTIATE_TEST_SUITE_P(
    Files, RealDataChecksumTest,
    ::testing::Values(
        Checksum{"GunPoint_TRAIN.ts", 150, 50, -154914.1708196001, 633963.646080, 123681320, 395793.138932, 143441330},
        Checksum{"GunPoint_TRAIN.ts", 16, 50, -1046.3429802507, 7535.038274842341, 1498591, 4444.245941, 1632429},
        Checksum{"GunPoint_TRAIN.tsv", 150, 50, -154914.1708196001, 633963.646080, 123681320, 395793.138932, 143441330},
        Checksum{"BasicMotions_TRAIN.ts", 100, 40, -1606009.6509012070, NAN, 101216529, 650179.996869, 306016157},
        Checksum{"ItalyPowerDemand_TRAIN.ts", 24, 67, -17845.1607450433, NAN, 2645182, 17388.575901, 4921585}));

// 270 cases of 12 channels and 7 to 26 points, 51,288 values in all.
class UnequalLengthTest : public RealDataTest {
 protected:
  // One batch of all cases; none when it cannot be had.
  std::optional<Batch> ReadVowels(v1::IngestOptions::Unequal unequal, uint32_t image_size) {
    v1::IngestOptions ingest;
    ingest.set_unequal(unequal);
    EXPECT_EQ(Ingest("vowels", SharedFile("data/timeseries/JapaneseVowels_TRAIN.ts"), ingest).dataset().samples(),
              270u);
    LoaderOptions options = Read("vowels", 270);
    options.recipe.mutable_gaf()->set_image_size(image_size);
    for (const auto field : {v1::GafRecipe::GASF, v1::GafRecipe::SERIES})
      options.recipe.mutable_gaf()->add_fields(field);
    absl::StatusOr<Loader> loader = client().Open(options);
    EXPECT_OK(loader);
    if (!loader.ok()) return std::nullopt;
    const absl::StatusOr<std::optional<Batch>> batch = loader->Next(absl::Seconds(60));
    EXPECT_OK(batch);
    return batch.value_or(std::nullopt);
  }
  static std::vector<int64_t> Shape(const Batch& batch, absl::string_view name) {
    const absl::StatusOr<RawTensor> tensor = batch.GetRaw(name);
    EXPECT_OK(tensor);
    return tensor.ok() ? std::vector<int64_t>(tensor->shape.begin(), tensor->shape.end()) : std::vector<int64_t>();
  }
};

TEST_F(UnequalLengthTest, Paa_ReducesAllToOneSize) {
  ASSERT_NO_FATAL_FAILURE(StartDaemon());
  const std::optional<Batch> batch = ReadVowels(v1::IngestOptions::UNEQUAL_PAA, 7);
  ASSERT_TRUE(batch.has_value());
  EXPECT_EQ(Shape(*batch, "gasf"), (std::vector<int64_t>{270, 12, 7, 7}));
  EXPECT_EQ(Shape(*batch, "series"), (std::vector<int64_t>{270, 7, 12}));
  LoaderOptions too_large = Read("vowels", 4);
  too_large.recipe.mutable_gaf()->set_image_size(8);
  EXPECT_THAT(client().Open(too_large),
              testing::StatusIs(absl::StatusCode::kInvalidArgument, ::testing::HasSubstr("image_size")));
}

TEST_F(UnequalLengthTest, Crop_CutsAllToTheShortest) {
  ASSERT_NO_FATAL_FAILURE(StartDaemon());
  const std::optional<Batch> batch = ReadVowels(v1::IngestOptions::UNEQUAL_CROP, 0);
  ASSERT_TRUE(batch.has_value());
  EXPECT_EQ(Shape(*batch, "gasf"), (std::vector<int64_t>{270, 12, 7, 7}));
  ASSERT_OK_AND_ASSIGN(const TensorView<float> series, batch->Get<float>("series"));
  EXPECT_EQ(series.data()[0], 1.860936f);
}

TEST_F(UnequalLengthTest, Pad_FillsAllToTheLongestAndMasks) {
  ASSERT_NO_FATAL_FAILURE(StartDaemon());
  const std::optional<Batch> batch = ReadVowels(v1::IngestOptions::UNEQUAL_PAD, 0);
  ASSERT_TRUE(batch.has_value());
  EXPECT_EQ(Shape(*batch, "gasf"), (std::vector<int64_t>{270, 12, 26, 26}));
  EXPECT_EQ(Shape(*batch, "mask"), (std::vector<int64_t>{270, 26}));
  ASSERT_OK_AND_ASSIGN(const TensorView<uint8_t> mask, batch->Get<uint8_t>("mask"));
  ASSERT_OK_AND_ASSIGN(const TensorView<float> series, batch->Get<float>("series"));
  EXPECT_EQ(SumsOf(mask.data()).sum, 51288.0 / 12);
  EXPECT_NEAR(SumsOf(series.data()).sum, -1057.452303, 1e-3);
  EXPECT_NEAR(SumsOf(series.data()).squares, 9465.77964274105, 1e-3);
}

}  // namespace
}  // namespace stoker
