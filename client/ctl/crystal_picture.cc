// SPDX-License-Identifier: Apache-2.0
#include "client/ctl/crystal_picture.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "shared/base/status_macros.h"

namespace stoker::ctl {
namespace {

constexpr uint32_t kColumns = 4;
constexpr uint32_t kCell = 240;  // pixels of a structure's side
constexpr uint32_t kFine = 3;    // drawn so much larger, then averaged
constexpr uint32_t kMargin = 8;
constexpr double kBorder = 0.12;       // of a structure's side, on each side
constexpr double kBondStretch = 1.15;  // edges up to so many times the atom's shortest are drawn
constexpr Colour kPaper = {255, 255, 255};
constexpr Colour kFrame = {170, 170, 178};

using Vector = std::array<double, 3>;

// The colours that chemists know; other elements take one of the ramp by their number.
constexpr std::pair<int64_t, Colour> kElements[] = {
    {1, {235, 235, 235}},  {3, {178, 102, 255}},  {4, {190, 220, 20}},   {5, {255, 181, 181}},  {6, {90, 90, 96}},
    {7, {48, 80, 248}},    {8, {225, 30, 20}},    {9, {120, 200, 70}},   {11, {150, 80, 220}},  {12, {60, 140, 30}},
    {13, {170, 150, 160}}, {14, {220, 180, 130}}, {15, {255, 128, 0}},   {16, {235, 205, 40}},  {17, {31, 190, 31}},
    {19, {130, 60, 190}},  {20, {61, 190, 60}},   {22, {150, 155, 165}}, {26, {214, 100, 50}},  {29, {200, 120, 60}},
    {30, {120, 125, 176}}, {31, {194, 143, 143}}, {38, {30, 170, 30}},   {47, {165, 165, 175}}, {56, {0, 150, 20}},
    {79, {230, 190, 50}}};

Colour ColourOfElement(int64_t number) {
  for (const auto& [known, colour] : kElements) {
    if (known == number) return colour;
  }
  return ColourOf(static_cast<double>(number) / 118);
}

Colour Shade(Colour colour, double light) {
  for (uint8_t& part : colour) part = static_cast<uint8_t>(std::clamp(part * light, 0.0, 255.0));
  return colour;
}

// Turned a quarter to the side and tilted towards the viewer; x to the right, y up, z to the viewer.
Vector Turn(const Vector& p) {
  constexpr double kSide = 0.42, kTilt = 0.32;  // radians
  const double x = p[0] * std::cos(kSide) + p[1] * std::sin(kSide);
  const double back = p[1] * std::cos(kSide) - p[0] * std::sin(kSide);
  return {x, p[2] * std::cos(kTilt) + back * std::sin(kTilt), p[2] * std::sin(kTilt) - back * std::cos(kTilt)};
}

struct Atom {
  Vector at;  // turned, Å
  int64_t number;
};
struct Line {
  Vector from, to;  // turned, Å
  Colour colour;
  double width;  // Å
};
struct Scene {
  std::vector<Atom> atoms;
  std::vector<Line> lines;
};

double Radius(int64_t number) { return 0.28 + 0.22 * std::cbrt(static_cast<double>(number) / 118); }

// The tensors of a picture.
struct Graphs {
  TensorView<float> fraction, lattice, r;
  std::vector<int64_t> number, ptr, edges;  // edges: sources, then destinations
  int64_t samples() const { return static_cast<int64_t>(ptr.size()) - 1; }
  int64_t edge_count() const { return static_cast<int64_t>(edges.size()) / 2; }
};

absl::StatusOr<std::vector<int64_t>> Indices(const Batch& batch, absl::string_view name) {
  const absl::StatusOr<TensorView<int64_t>> wide = batch.Get<int64_t>(name);
  if (wide.ok()) return std::vector<int64_t>(wide->data().begin(), wide->data().end());
  const absl::StatusOr<TensorView<int32_t>> narrow = batch.Get<int32_t>(name);
  if (narrow.ok()) return std::vector<int64_t>(narrow->data().begin(), narrow->data().end());
  return wide.status();
}

absl::StatusOr<Graphs> GraphsOf(const Batch& batch) {
  const auto fraction = batch.Get<float>("frac_coords");
  const auto lattice = batch.Get<float>("lattice");
  const auto r = batch.Get<float>("r");
  const auto number = Indices(batch, "atomic_number");
  const auto ptr = Indices(batch, "ptr");
  const auto edges = Indices(batch, "edge_index");
  for (const absl::Status& status :
       {fraction.status(), lattice.status(), r.status(), number.status(), ptr.status(), edges.status()}) {
    if (status.ok()) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "options: --tensors: a picture needs atomic_number, frac_coords, lattice, ptr, edge_index and r, in f32: ",
        status.message()));
  }
  if (ptr->size() < 2) return absl::InvalidArgumentError("options: the batch has no samples to draw");
  return Graphs{*fraction, *lattice, *r, *number, *ptr, *edges};
}

Vector Cartesian(const std::array<double, 3>& fraction, absl::Span<const float> lattice) {
  Vector sum = {};
  for (size_t i = 0; i < 3; ++i) {
    for (size_t k = 0; k < 3; ++k) sum[k] += fraction[i] * lattice[3 * i + k];
  }
  return sum;
}

void AddFrame(absl::Span<const float> lattice, Scene* scene) {
  for (int corner = 0; corner < 8; ++corner) {
    for (int axis = 0; axis < 3; ++axis) {
      if ((corner >> axis) & 1) continue;
      const auto place = [&](int c) {
        return Turn(Cartesian({double(c & 1), double((c >> 1) & 1), double((c >> 2) & 1)}, lattice));
      };
      scene->lines.push_back({place(corner), place(corner | (1 << axis)), kFrame, 0.04});
    }
  }
}

// An atom in the cell, and again on the opposite side of the cell where it lies on a face, an edge or a corner.
std::vector<Vector> Places(absl::Span<const float> fraction, absl::Span<const float> lattice, bool molecule) {
  if (molecule) return {{fraction[0], fraction[1], fraction[2]}};
  std::array<double, 3> base;
  for (size_t k = 0; k < 3; ++k) {
    base[k] = fraction[k] - std::floor(fraction[k]);
    if (base[k] > 1 - 1e-4) base[k] = 0;
  }
  std::vector<Vector> places;
  for (int image = 0; image < 8; ++image) {
    std::array<double, 3> at = base;
    bool there = true;
    for (int k = 0; k < 3; ++k) {
      if (!((image >> k) & 1)) continue;
      there = there && base[k] < 1e-4;
      at[k] += 1;
    }
    if (there) places.push_back(Cartesian(at, lattice));
  }
  return places;
}

Scene SceneOf(const Graphs& graphs, int64_t sample) {
  const auto lattice = graphs.lattice.data().subspan(static_cast<size_t>(9 * sample), 9);
  const bool molecule = std::all_of(lattice.begin(), lattice.end(), [](float x) { return x == 0; });
  Scene scene;
  if (!molecule) AddFrame(lattice, &scene);
  int64_t edge = 0;  // edges are sorted by source
  while (edge < graphs.edge_count() && graphs.edges[edge] < graphs.ptr[sample]) ++edge;
  for (int64_t atom = graphs.ptr[sample]; atom < graphs.ptr[sample + 1]; ++atom) {
    const int64_t number = graphs.number[atom];
    const auto places = Places(graphs.fraction.data().subspan(static_cast<size_t>(3 * atom), 3), lattice, molecule);
    for (const Vector& place : places) scene.atoms.push_back({Turn(place), number});
    double shortest = 0;
    for (; edge < graphs.edge_count() && graphs.edges[edge] == atom; ++edge) {
      const float* const r = graphs.r.data().data() + 3 * edge;
      const double length = std::hypot(r[0], r[1], r[2]);
      if (shortest == 0) shortest = length;
      if (length > kBondStretch * shortest) continue;
      for (const Vector& place : places) {  // half of the edge: the other atom draws the other half
        const Vector middle = {place[0] + r[0] / 2, place[1] + r[1] / 2, place[2] + r[2] / 2};
        scene.lines.push_back({Turn(place), Turn(middle), Shade(ColourOfElement(number), 0.85), 0.13});
      }
    }
  }
  return scene;
}

// From Å to the pixels of one place of the sheet.
class Canvas {
 public:
  Canvas(const Scene& scene, uint32_t left, uint32_t top, Picture* picture)
      : left_(left), top_(top), picture_(picture) {
    const auto see = [this](const Vector& at, double radius) {
      for (size_t k = 0; k < 2; ++k) {
        low_[k] = std::min(low_[k], at[k] - radius);
        high_[k] = std::max(high_[k], at[k] + radius);
      }
    };
    for (const Atom& atom : scene.atoms) see(atom.at, Radius(atom.number));
    for (const Line& line : scene.lines) see(line.from, 0), see(line.to, 0);
    const double extent = std::max({high_[0] - low_[0], high_[1] - low_[1], 1e-3});
    scale_ = kCell * kFine * (1 - 2 * kBorder) / extent;
  }

  void Draw(const Atom& atom) {
    const Colour colour = ColourOfElement(atom.number);
    const double radius = Radius(atom.number);
    const auto [x, y] = Pixel(atom.at);
    ForDisc(x, y, radius * scale_, [&](double dx, double dy, double edge) {
      // Lit from the upper left; dark at the rim.
      const double light = edge > 0.9 ? 0.45 : 1.08 - 0.35 * (dx + dy) - 0.25 * edge * edge;
      return Shade(colour, light);
    });
  }

  void Draw(const Line& line) {
    const auto [x0, y0] = Pixel(line.from);
    const auto [x1, y1] = Pixel(line.to);
    const double width = std::max(line.width * scale_, kFine / 2.0);
    const int steps = std::max(1, static_cast<int>(2 * std::hypot(x1 - x0, y1 - y0) / width));
    for (int i = 0; i <= steps; ++i) {
      const double part = static_cast<double>(i) / steps;
      ForDisc(x0 + part * (x1 - x0), y0 + part * (y1 - y0), width, [&](double, double, double) { return line.colour; });
    }
  }

 private:
  std::pair<double, double> Pixel(const Vector& at) const {
    const double half = kCell * kFine / 2.0;
    return {left_ + half + (at[0] - (low_[0] + high_[0]) / 2) * scale_,
            top_ + half - (at[1] - (low_[1] + high_[1]) / 2) * scale_};
  }

  // `paint` gets the place in the disc, from -1 to 1, and the distance from its centre.
  template <typename Paint>
  void ForDisc(double x, double y, double radius, Paint paint) {
    const auto clip = [](double v, uint32_t most) { return static_cast<uint32_t>(std::clamp<double>(v, 0, most)); };
    for (uint32_t py = clip(y - radius, picture_->height()); py < clip(y + radius + 1, picture_->height()); ++py) {
      for (uint32_t px = clip(x - radius, picture_->width()); px < clip(x + radius + 1, picture_->width()); ++px) {
        const double dx = (px + 0.5 - x) / radius;
        const double dy = (py + 0.5 - y) / radius;
        const double distance = std::hypot(dx, dy);
        if (distance <= 1) picture_->Set(px, py, paint(dx, dy, distance));
      }
    }
  }

  const double left_, top_;
  Picture* const picture_;
  double scale_ = 1;
  std::array<double, 2> low_ = {1e300, 1e300};
  std::array<double, 2> high_ = {-1e300, -1e300};
};

// The farthest first.
void Draw(const Scene& scene, Canvas canvas) {
  struct Item {
    double depth;
    const Line* line;
    const Atom* atom;
  };
  std::vector<Item> items;
  for (const Line& line : scene.lines) items.push_back({(line.from[2] + line.to[2]) / 2, &line, nullptr});
  for (const Atom& atom : scene.atoms) items.push_back({atom.at[2], nullptr, &atom});
  std::sort(items.begin(), items.end(), [](const Item& a, const Item& b) { return a.depth < b.depth; });
  for (const Item& item : items) item.line != nullptr ? canvas.Draw(*item.line) : canvas.Draw(*item.atom);
}

Picture Averaged(const Picture& fine) {
  Picture picture(fine.width() / kFine, fine.height() / kFine, kPaper);
  for (uint32_t y = 0; y < picture.height(); ++y) {
    for (uint32_t x = 0; x < picture.width(); ++x) {
      std::array<uint32_t, 3> sum = {};
      for (uint32_t i = 0; i < kFine * kFine; ++i) {
        const Colour colour = fine.at(x * kFine + i % kFine, y * kFine + i / kFine);
        for (size_t c = 0; c < 3; ++c) sum[c] += colour[c];
      }
      constexpr uint32_t kCount = kFine * kFine;
      picture.Set(x, y,
                  {static_cast<uint8_t>(sum[0] / kCount), static_cast<uint8_t>(sum[1] / kCount),
                   static_cast<uint8_t>(sum[2] / kCount)});
    }
  }
  return picture;
}

}  // namespace

absl::StatusOr<Picture> CrystalSheet(const Batch& batch, int64_t samples) {
  STOKER_ASSIGN_OR_RETURN(const Graphs graphs, GraphsOf(batch));
  const auto count = static_cast<uint32_t>(std::min(samples, graphs.samples()));
  const uint32_t columns = std::min(count, kColumns);
  const uint32_t rows = (count + kColumns - 1) / kColumns;
  const auto side = [](uint32_t cells) { return (cells * (kCell + kMargin) + kMargin) * kFine; };
  Picture fine(side(columns), side(rows), kPaper);
  for (uint32_t i = 0; i < count; ++i) {
    const Scene scene = SceneOf(graphs, i);
    const auto place = [](uint32_t cell) { return (kMargin + cell * (kCell + kMargin)) * kFine; };
    Draw(scene, Canvas(scene, place(i % kColumns), place(i / kColumns), &fine));
  }
  return Averaged(fine);
}

}  // namespace stoker::ctl
