// SPDX-License-Identifier: Apache-2.0
#include "client/ctl/picture.h"

#include <gtest/gtest.h>
#include <png.h>

#include <cmath>
#include <cstring>
#include <map>

#include "client/ctl/crystal_picture.h"
#include "client/src/batch_data.h"
#include "shared/tensor/layout.h"
#include "tests/support/status_matchers.h"

namespace stoker::ctl {
namespace {

using ::testing::HasSubstr;
using testing::StatusIs;

// A batch in ordinary memory whose tensors are filled by `fill(name, element, place)`.
Batch MakeBatch(const std::vector<tensor::TensorSpec>& specs,
                const std::function<void(const std::string&, int64_t, uint8_t*)>& fill) {
  const tensor::Layout layout = *tensor::Layout::Create(specs);
  std::shared_ptr<uint8_t> extent(static_cast<uint8_t*>(::aligned_alloc(4096, layout.extent_bytes())), &::free);
  for (size_t i = 0; i < specs.size(); ++i) {
    const int64_t size = static_cast<int64_t>(specs[i].size_bytes()) / std::max<int64_t>(1, specs[i].elements());
    for (int64_t element = 0; element < specs[i].elements(); ++element) {
      fill(specs[i].name, element, extent.get() + layout.offset_bytes(i) + element * size);
    }
  }
  v1::BatchDescriptor descriptor;
  layout.Describe(&descriptor);
  return Batch(std::make_shared<client::BatchData>(descriptor, extent.get(), extent, true));
}

template <typename T>
void Put(uint8_t* place, T value) {
  std::memcpy(place, &value, sizeof(value));
}

TEST(ColourOfTest, RisesInLightnessAndClips) {
  const auto lightness = [](Colour c) { return 0.2126 * c[0] + 0.7152 * c[1] + 0.0722 * c[2]; };
  for (int i = 0; i < 100; ++i) EXPECT_LT(lightness(ColourOf(i / 100.0)), lightness(ColourOf((i + 1) / 100.0)) + 0.6);
  EXPECT_EQ(ColourOf(-3), ColourOf(0));
  EXPECT_EQ(ColourOf(7), ColourOf(1));
  EXPECT_EQ(ColourOf(std::nan("")), (Colour{128, 128, 128}));
}

TEST(ContactSheetTest, PutsFieldsSideBySide_SamplesBelow_AndEnlargesSmallImages) {
  const Batch batch =
      MakeBatch({{"gasf", v1::DTYPE_U8, {3, 2, 4, 4}}, {"gadf", v1::DTYPE_U8, {3, 2, 4, 4}}},
                [](const std::string& name, int64_t, uint8_t* place) { *place = name == "gasf" ? 255 : 0; });
  ASSERT_OK_AND_ASSIGN(const Picture picture, ContactSheet(batch, 2, 5));
  EXPECT_EQ(picture.width(), 8u + 2 * (128 + 2 + 128 + 8));  // two channels
  EXPECT_EQ(picture.height(), 8u + 2 * (128 + 8));           // two samples
  EXPECT_EQ(picture.at(0, 0), (Colour{255, 255, 255}));
  EXPECT_EQ(picture.at(8, 8), ColourOf(1));
  EXPECT_EQ(picture.at(8 + 127, 8 + 127), ColourOf(1));
  EXPECT_EQ(picture.at(8 + 128, 8), (Colour{255, 255, 255}));
  EXPECT_EQ(picture.at(8 + 128 + 2, 8), ColourOf(0));
}

TEST(ContactSheetTest, ShowsElementsWhereTheyAre) {
  const Batch batch = MakeBatch({{"gadf", v1::DTYPE_F32, {1, 1, 2, 2}}}, [](const std::string&, int64_t i, uint8_t* p) {
    Put(p, static_cast<float>(i) / 1.5f - 1.0f);
  });
  ASSERT_OK_AND_ASSIGN(const Picture picture, ContactSheet(batch, 1, 1));
  EXPECT_EQ(picture.at(8, 8), ColourOf(0));
  EXPECT_EQ(picture.at(8 + 127, 8), ColourOf(1 / 3.0));
  EXPECT_EQ(picture.at(8, 8 + 127), ColourOf(2 / 3.0));
  EXPECT_EQ(picture.at(8 + 127, 8 + 127), ColourOf(1));
}

TEST(ContactSheetTest, EveryImageTypeLooksTheSame) {
  const auto corner = [](v1::DType dtype, auto one) {
    const Batch batch = MakeBatch({{"gasf", dtype, {1, 1, 2, 2}}},
                                  [&](const std::string&, int64_t, uint8_t* place) { Put(place, one); });
    return ContactSheet(batch, 1, 1)->at(8, 8);
  };
  EXPECT_EQ(corner(v1::DTYPE_F32, 1.0f), ColourOf(1));
  EXPECT_EQ(corner(v1::DTYPE_F16, uint16_t{0x3c00}), ColourOf(1));
  EXPECT_EQ(corner(v1::DTYPE_BF16, uint16_t{0x3f80}), ColourOf(1));
  EXPECT_EQ(corner(v1::DTYPE_U8, uint8_t{255}), ColourOf(1));
  EXPECT_EQ(corner(v1::DTYPE_U16, uint16_t{65535}), ColourOf(1));
}

TEST(ContactSheetTest, LargeImagesAreThinnedOut) {
  const Batch batch = MakeBatch({{"gasf", v1::DTYPE_U8, {1, 1, 1024, 1024}}},
                                [](const std::string&, int64_t, uint8_t* place) { *place = 0; });
  EXPECT_EQ(ContactSheet(batch, 1, 1)->width(), 8u + 512 + 8);
}

TEST(ContactSheetTest, WithoutImages_SaysWhatIsMissing) {
  const auto nothing = [](const std::string&, int64_t, uint8_t*) {};
  EXPECT_THAT(ContactSheet(MakeBatch({{"series", v1::DTYPE_F32, {1, 4, 1}}}, nothing), 1, 1),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("--fields")));
  EXPECT_THAT(ContactSheet(MakeBatch({{"gasf", v1::DTYPE_F32, {0, 1, 4, 4}}}, nothing), 1, 1),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("no samples")));
}

TEST(PictureTest, EncodePng_CanBeReadBack) {
  Picture picture(5, 3, {9, 9, 9});
  picture.Set(4, 2, {1, 2, 3});
  ASSERT_OK_AND_ASSIGN(const std::string bytes, picture.EncodePng());
  png_image image = {};
  image.version = PNG_IMAGE_VERSION;
  ASSERT_NE(png_image_begin_read_from_memory(&image, bytes.data(), bytes.size()), 0);
  EXPECT_EQ(image.width, 5u);
  EXPECT_EQ(image.height, 3u);
  image.format = PNG_FORMAT_RGB;
  std::vector<uint8_t> pixels(PNG_IMAGE_SIZE(image));
  ASSERT_NE(png_image_finish_read(&image, nullptr, pixels.data(), 0, nullptr), 0);
  EXPECT_EQ(pixels[0], 9);
  EXPECT_EQ(pixels[pixels.size() - 1], 3);
}

// Two cells: caesium chloride, whose eight corners show the first atom, and a molecule of two atoms.
Batch Crystals(v1::DType index) {
  const std::vector<tensor::TensorSpec> specs = {
      {"atomic_number", index, {4}}, {"frac_coords", v1::DTYPE_F32, {4, 3}}, {"lattice", v1::DTYPE_F32, {2, 3, 3}},
      {"ptr", index, {3}},           {"edge_index", index, {2, 4}},          {"r", v1::DTYPE_F32, {4, 3}}};
  const std::map<std::string, std::vector<float>> values = {
      {"atomic_number", {8, 17, 1, 8}},
      {"frac_coords", {0, 0, 0, 0.5f, 0.5f, 0.5f, 0, 0, 0, 0.96f, 0, 0}},
      {"lattice", {4.1f, 0, 0, 0, 4.1f, 0, 0, 0, 4.1f, 0, 0, 0, 0, 0, 0, 0, 0, 0}},
      {"ptr", {0, 2, 4}},
      {"edge_index", {0, 1, 2, 3, 1, 0, 3, 2}},
      {"r", {2.05f, 2.05f, 2.05f, -2.05f, -2.05f, -2.05f, 0.96f, 0, 0, -0.96f, 0, 0}}};
  return MakeBatch(specs, [&, index](const std::string& name, int64_t element, uint8_t* place) {
    const float value = values.at(name)[static_cast<size_t>(element)];
    const bool real = name == "frac_coords" || name == "lattice" || name == "r";
    if (real) {
      Put(place, value);
    } else if (index == v1::DTYPE_I32) {
      Put(place, static_cast<int32_t>(value));
    } else {
      Put(place, static_cast<int64_t>(value));
    }
  });
}

// Pixels of a picture's column of structures in which one part of the colour stands out.
int CountPixels(const Picture& picture, uint32_t left, uint32_t right, size_t part) {
  int count = 0;
  for (uint32_t y = 0; y < picture.height(); ++y) {
    for (uint32_t x = left; x < right; ++x) {
      const Colour colour = picture.at(x, y);
      count += colour[part] > 60 + std::max(colour[(part + 1) % 3], colour[(part + 2) % 3]) ? 1 : 0;
    }
  }
  return count;
}

TEST(CrystalSheetTest, ShowsEachStructureWithItsElementsInTheirColours) {
  for (const v1::DType index : {v1::DTYPE_I64, v1::DTYPE_I32}) {
    ASSERT_OK_AND_ASSIGN(const Picture picture, CrystalSheet(Crystals(index), 5));
    EXPECT_EQ(picture.width(), 8u + 2 * (240 + 8));
    EXPECT_EQ(picture.height(), 8u + 240 + 8);
    EXPECT_EQ(picture.at(0, 0), (Colour{255, 255, 255}));
    const uint32_t middle = picture.width() / 2;
    EXPECT_GT(CountPixels(picture, 0, middle, 0), 8 * CountPixels(picture, 0, middle, 1) / 3) << "eight corners, red";
    EXPECT_GT(CountPixels(picture, 0, middle, 1), 50) << "one atom in the middle, green";
    EXPECT_GT(CountPixels(picture, middle, picture.width(), 0), 50) << "a molecule without a cell";
    EXPECT_EQ(CountPixels(picture, middle, picture.width(), 1), 0);
  }
}

TEST(CrystalSheetTest, WithoutATensorThatItNeeds_IsInvalidArgumentThatNamesIt) {
  const Batch batch = MakeBatch({{"frac_coords", v1::DTYPE_F32, {1, 3}}},
                                [](const std::string&, int64_t, uint8_t* place) { Put(place, 0.0f); });
  EXPECT_THAT(CrystalSheet(batch, 1), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("lattice")));
}

}  // namespace
}  // namespace stoker::ctl
