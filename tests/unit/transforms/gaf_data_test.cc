// SPDX-License-Identifier: Apache-2.0
// Images that pyts made of synthetic and of real series. Skipped where the folder with them is absent.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "server/transforms/gaf_reference.h"
#include "tests/unit/transforms/images.h"

namespace stoker::transforms {
namespace {

std::filesystem::path SharedFolder() {
  const char* named = std::getenv("STOKER_SHARED");
  return named != nullptr ? named : STOKER_SHARED_DIR;
}

nlohmann::json ReadJson(const std::filesystem::path& path) {
  std::ifstream in(path);
  return in ? nlohmann::json::parse(in) : nlohmann::json();
}

std::vector<double> ParseNumbers(const std::string& text, char separator) {
  std::vector<double> values;
  for (const absl::string_view field : absl::StrSplit(text, separator, absl::SkipWhitespace())) {
    EXPECT_TRUE(absl::SimpleAtod(field, &values.emplace_back())) << field;
  }
  return values;
}

// All series of a .ts (the label is the last field) or a UCR file (the label is the first), in the file's order.
std::vector<std::vector<double>> ReadSeries(const std::filesystem::path& path, bool ts) {
  std::ifstream in(path);
  std::vector<std::vector<double>> series;
  bool in_data = !ts;
  for (std::string line; std::getline(in, line);) {
    if (!in_data) {
      in_data = absl::StartsWith(absl::AsciiStrToLower(line), "@data");
      continue;
    }
    if (absl::StripAsciiWhitespace(line).empty()) continue;
    if (ts) {
      std::vector<std::string> fields = absl::StrSplit(line, ':');
      fields.pop_back();
      for (const std::string& field : fields) series.push_back(ParseNumbers(field, ','));
    } else {
      std::vector<double> row = ParseNumbers(line, line.find('\t') != std::string::npos ? '\t' : ' ');
      row.erase(row.begin());
      series.push_back(std::move(row));
    }
  }
  return series;
}

TEST(GafData, SyntheticSeries_AsPyts) {
  const nlohmann::json cases = ReadJson(SharedFolder() / "golden/gaf_pyts.json");
  if (cases.is_null()) GTEST_SKIP() << "no golden/gaf_pyts.json beside the checkout";
  for (const std::string& path : GafPaths()) {
    for (const auto& golden : cases) {
      const auto& params = golden["params"];
      const std::vector<double> x = golden["x"];
      GafOptions options = OptionsOf(params.value("image_size", static_cast<int64_t>(x.size())));
      options.gasf = golden["method"] == "summation";
      options.gadf = !options.gasf;
      options.overlapping = params.value("overlapping", false);
      if (params.contains("sample_range"))
        options.sample_range = {params["sample_range"][0], params["sample_range"][1]};
      const Encoded floats = Encode(options, path, x);
      const std::vector<float> got = As<float>(options.gasf ? floats.gasf : floats.gadf);
      options.dtype = v1::DTYPE_U8;
      const Encoded codes = Encode(options, path, x);
      const std::vector<uint8_t>& got_u8 = options.gasf ? codes.gasf : codes.gadf;
      const std::vector<std::vector<double>> image = golden["image"];
      const std::vector<std::vector<uint8_t>> u8 = golden["u8"];
      for (size_t i = 0; i < image.size(); ++i) {
        for (size_t j = 0; j < image.size(); ++j) {
          const size_t at = i * image.size() + j;
          EXPECT_NEAR(got[at], image[i][j], 5e-7) << golden["case"] << " " << params << " " << i << " " << j;
          EXPECT_EQ(got_u8[at], u8[i][j]) << golden["case"] << " " << params << " " << i << " " << j;
        }
      }
    }
  }
}

struct Sums {
  double sum = 0.0, squares = 0.0;
  int64_t codes = 0, pixels = 0;
};

Sums SumImages(const std::vector<std::vector<double>>& series, bool gasf, int64_t size, const std::string& path) {
  GafOptions options = OptionsOf(size);
  options.gasf = gasf;
  options.gadf = !gasf;
  auto floats = GafEncoder::Create(options, path);
  options.dtype = v1::DTYPE_U8;
  auto codes = GafEncoder::Create(options, path);
  std::vector<float> f32(size * size);
  std::vector<uint8_t> u8(size * size);
  Sums sums;
  for (const std::vector<double>& window : series) {
    EXPECT_OK(floats->Encode(window, size, {}, f32.data(), f32.data()));
    EXPECT_OK(codes->Encode(window, size, {}, u8.data(), u8.data()));
    floats->Flush();
    for (const float g : f32) {
      sums.sum += g;
      sums.squares += static_cast<double>(g) * g;
    }
    for (const uint8_t code : u8) sums.codes += code;
    sums.pixels += size * size;
  }
  return sums;
}

TEST(GafData, RealSeries_ChecksumsOfPyts) {
  const nlohmann::json shapes = ReadJson(SharedFolder() / "golden/timeseries_shapes.json");
  if (shapes.is_null()) GTEST_SKIP() << "no golden/timeseries_shapes.json beside the checkout";
  int files = 0;
  for (const auto& [name, file] : shapes["files"].items()) {
    const std::filesystem::path data = SharedFolder() / "data/timeseries" / name;
    // Files with time stamps need a real reader.
    const bool stamped = file.contains("header") && file["header"].value("timestamps", false);
    if (!file.contains("gaf_checksums") || stamped || !std::filesystem::exists(data)) continue;
    const std::vector<std::vector<double>> series = ReadSeries(data, file["format"] == "ts");
    ++files;
    for (const auto& golden : file["gaf_checksums"]) {
      ASSERT_EQ(series.size(), golden["n_images"]) << name;
      for (const std::string& path : GafPaths()) {
        if (path == "scalar" && series.size() > 200) continue;  // slow, and the others are compared with it elsewhere
        const Sums got = SumImages(series, golden["method"] == "summation", golden["image_size"], path);
        const double pixels = static_cast<double>(got.pixels);
        // float32 errors are of both signs: far below 5e-7 a pixel.
        EXPECT_NEAR(got.sum, golden["sum"], 2e-8 * pixels) << name << golden << path;
        EXPECT_NEAR(got.squares, golden["sumsq"], 2e-8 * pixels) << name << golden << path;
        EXPECT_NEAR(static_cast<double>(got.codes), golden["u8_sum"], 2.0 + 1e-5 * pixels) << name << golden << path;
      }
    }
  }
  if (files == 0) GTEST_SKIP() << "none of the files is in data/timeseries";
}

}  // namespace
}  // namespace stoker::transforms
