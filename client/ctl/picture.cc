// SPDX-License-Identifier: Apache-2.0
#include "client/ctl/picture.h"

#include <png.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "absl/strings/str_cat.h"

namespace stoker::ctl {
namespace {

constexpr uint32_t kSmallestCell = 128;  // pixels of an image's side: smaller images are enlarged,
constexpr uint32_t kLargestCell = 512;   // larger ones thinned out
constexpr uint32_t kThin = 2;            // between the fields of a channel
constexpr uint32_t kThick = 8;           // between channels, samples, and around
constexpr Colour kPaper = {255, 255, 255};
constexpr Colour kUnknown = {128, 128, 128};

// Chosen for an even rise of lightness from 14 to 90 (CIE L*), hue going from violet over teal to yellow.
constexpr std::array<std::array<double, 3>, 7> kRamp = {
    {{68, 1, 84}, {69, 52, 127}, {53, 94, 141}, {34, 132, 141}, {38, 168, 127}, {122, 204, 84}, {250, 230, 38}}};

// An element of an image as a number in [0, 1] that stands for [-1, 1].
double Normal(const RawTensor& tensor, int64_t i) {
  const uint8_t* bytes = tensor.bytes.data();
  const auto load = [&](auto value) {
    std::memcpy(&value, bytes + i * static_cast<int64_t>(sizeof(value)), sizeof(value));
    return value;
  };
  switch (tensor.dtype) {
    case v1::DTYPE_F32:
      return (load(float{}) + 1) / 2;
    case v1::DTYPE_F16:
      return (load(Half{}).ToFloat() + 1) / 2;
    case v1::DTYPE_BF16:
      return (load(BFloat16{}).ToFloat() + 1) / 2;
    case v1::DTYPE_U8:
      return load(uint8_t{}) / 255.0;
    case v1::DTYPE_U16:
      return load(uint16_t{}) / 65535.0;
    default:
      return std::numeric_limits<double>::quiet_NaN();
  }
}

uint32_t CellSize(int64_t image_size) {
  const auto size = static_cast<uint32_t>(std::min<int64_t>(image_size, kLargestCell));
  return size >= kSmallestCell ? size : size * ((kSmallestCell + size - 1) / size);
}

// One image of a tensor [B, C, S, S], scaled to the cell by taking the nearest element.
void Draw(const RawTensor& tensor, int64_t sample, int64_t channel, uint32_t left, uint32_t top, uint32_t cell,
          Picture* picture) {
  const int64_t size = tensor.shape[3];
  const int64_t first = sample * tensor.strides[0] + channel * tensor.strides[1];
  for (uint32_t y = 0; y < cell; ++y) {
    for (uint32_t x = 0; x < cell; ++x) {
      const int64_t element = first + y * size / cell * tensor.strides[2] + x * size / cell;
      picture->Set(left + x, top + y, ColourOf(Normal(tensor, element)));
    }
  }
}

absl::StatusOr<std::vector<RawTensor>> Images(const Batch& batch) {
  std::vector<RawTensor> images;
  for (const absl::string_view name : {"gasf", "gadf"}) {
    const absl::StatusOr<RawTensor> tensor = batch.GetRaw(name);
    if (tensor.ok() && tensor->shape.size() == 4) images.push_back(*tensor);
  }
  if (images.empty()) return absl::InvalidArgumentError("options: --fields: a picture needs gasf, gadf or both");
  if (images[0].shape[0] == 0) return absl::InvalidArgumentError("options: the batch has no samples to draw");
  return images;
}

}  // namespace

Picture::Picture(uint32_t width, uint32_t height, Colour background)
    : width_(width), height_(height), pixels_(size_t{width} * height * 3) {
  for (size_t i = 0; i < pixels_.size(); ++i) pixels_[i] = background[i % 3];
}

Colour Picture::at(uint32_t x, uint32_t y) const {
  const uint8_t* pixel = &pixels_[(size_t{y} * width_ + x) * 3];
  return {pixel[0], pixel[1], pixel[2]};
}

void Picture::Set(uint32_t x, uint32_t y, Colour colour) {
  std::copy(colour.begin(), colour.end(), &pixels_[(size_t{y} * width_ + x) * 3]);
}

absl::StatusOr<std::string> Picture::EncodePng() const {
  png_image image = {};
  image.version = PNG_IMAGE_VERSION;
  image.width = width_;
  image.height = height_;
  image.format = PNG_FORMAT_RGB;
  png_alloc_size_t size = 0;
  std::string bytes;
  if (png_image_write_to_memory(&image, nullptr, &size, 0, pixels_.data(), 0, nullptr) != 0) {
    bytes.resize(size);
    if (png_image_write_to_memory(&image, bytes.data(), &size, 0, pixels_.data(), 0, nullptr) != 0) return bytes;
  }
  return absl::InternalError(absl::StrCat("encode PNG of ", width_, " x ", height_, ": ", image.message));
}

Colour ColourOf(double value) {
  if (std::isnan(value)) return kUnknown;
  const double place = std::clamp(value, 0.0, 1.0) * (kRamp.size() - 1);
  const size_t i = std::min(static_cast<size_t>(place), kRamp.size() - 2);
  const double part = place - static_cast<double>(i);
  Colour colour;
  for (size_t c = 0; c < 3; ++c) {
    colour[c] = static_cast<uint8_t>(std::lround(kRamp[i][c] * (1 - part) + kRamp[i + 1][c] * part));
  }
  return colour;
}

absl::StatusOr<Picture> ContactSheet(const Batch& batch, int64_t samples, int64_t channels) {
  const absl::StatusOr<std::vector<RawTensor>> images = Images(batch);
  if (!images.ok()) return images.status();
  const RawTensor& first = images->front();
  const auto rows = static_cast<uint32_t>(std::min(samples, first.shape[0]));
  const auto columns = static_cast<uint32_t>(std::min(channels, first.shape[1]));
  const auto fields = static_cast<uint32_t>(images->size());
  const uint32_t cell = CellSize(first.shape[2]);
  const uint32_t group = fields * cell + (fields - 1) * kThin;  // one channel of one sample
  Picture picture(columns * (group + kThick) + kThick, rows * (cell + kThick) + kThick, kPaper);
  for (uint32_t row = 0; row < rows; ++row) {
    for (uint32_t column = 0; column < columns; ++column) {
      for (uint32_t field = 0; field < fields; ++field) {
        const uint32_t left = kThick + column * (group + kThick) + field * (cell + kThin);
        Draw((*images)[field], row, column, left, kThick + row * (cell + kThick), cell, &picture);
      }
    }
  }
  return picture;
}

}  // namespace stoker::ctl
