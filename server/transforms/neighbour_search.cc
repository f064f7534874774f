// SPDX-License-Identifier: Apache-2.0
#include "server/transforms/neighbour_search.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "absl/strings/str_format.h"
#include "hwy/contrib/sort/vqsort.h"
#include "shared/base/status_macros.h"

namespace stoker::transforms {
namespace {

constexpr double kMaxCoordinate = 1e8;
// Below this share of the box around its vectors a lattice has no volume.
constexpr double kMinRelativeVolume = 1e-6;
// Images of blocks that one block may look at.
constexpr int64_t kMaxTargets = int64_t{1} << 24;
constexpr float kSameSpot = 1e-3f;
constexpr double kFarAway = std::numeric_limits<double>::infinity();

absl::Status SameSpot(int32_t atom, int32_t other, double distance) {
  if (atom == other) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "lattice: atom %d is %g Å from its own image; is the lattice in another unit?", atom + 1, distance));
  }
  return absl::InvalidArgumentError(
      absl::StrFormat("atoms %d and %d are on the same spot (%g Å apart); remove one of them",
                      std::min(atom, other) + 1, std::max(atom, other) + 1, distance));
}

int64_t FloorDivide(int64_t a, int64_t b) { return a >= 0 ? a / b : -((b - 1 - a) / b); }

int64_t PaddedAtoms(int64_t count) { return (count + kBlockPadding - 1) / kBlockPadding * kBlockPadding; }

}  // namespace

absl::Status NeighbourSearch::Begin(const Crystal& crystal) {
  if (crystal.fraction.empty() || crystal.fraction.size() % 3 != 0) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "%d coordinates: a structure has three for each of at least one atom", crystal.fraction.size()));
  }
  if (crystal.fraction.size() / 3 > std::numeric_limits<int32_t>::max()) {
    return absl::InvalidArgumentError("more atoms than 32-bit numbers count");
  }
  atoms_ = static_cast<int64_t>(crystal.fraction.size() / 3);
  periodic_ = crystal.periodic;
  image_bits_ = -1;
  block_count_ = 0;
  STOKER_RETURN_IF_ERROR(ReadLattice(crystal));
  return ReadAtoms(crystal);
}

absl::Status NeighbourSearch::ReadLattice(const Crystal& crystal) {
  lattice_ = crystal.lattice;
  double box = 1;
  for (const Vector3& row : lattice_) box *= Length(row);
  const bool any_periodic = periodic_[0] || periodic_[1] || periodic_[2];
  if (!std::isfinite(box) || box > 1e30) return absl::InvalidArgumentError("lattice: not finite, or too large");
  const double volume = std::abs(Dot(lattice_[0], Cross(lattice_[1], lattice_[2])));
  const bool has_volume = volume > kMinRelativeVolume * box;
  if (any_periodic && !has_volume) {
    return absl::InvalidArgumentError(
        absl::StrFormat("lattice: its vectors span no volume (%g Å^3), so the structure cannot be periodic; check the "
                        "lattice, or leave it "
                        "out for a molecule",
                        volume));
  }
  if (crystal.IsMolecule()) lattice_ = {{{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}};
  for (int a = 0; a < 3; ++a) {
    const Vector3 normal = Cross(lattice_[(a + 1) % 3], lattice_[(a + 2) % 3]);
    // Without volume nothing is periodic, and one block is all there is.
    axes_[a].height = crystal.IsMolecule() ? 1 : has_volume ? volume / Length(normal) : 0;
  }
  volume_ = volume;
  return absl::OkStatus();
}

absl::Status NeighbourSearch::ReadAtoms(const Crystal& crystal) {
  fraction_.Reserve(3 * atoms_);
  wraps_.Reserve(3 * atoms_);
  points_.Reserve(3 * atoms_);
  Vector3 low, high;
  low.fill(kFarAway);
  high.fill(-kFarAway);
  for (int64_t i = 0; i < atoms_; ++i) {
    Vector3 wrapped;
    for (int a = 0; a < 3; ++a) {
      const double given = crystal.fraction[3 * i + a];
      if (!(std::abs(given) <= kMaxCoordinate)) {
        return absl::InvalidArgumentError(
            absl::StrFormat("atom %d: coordinate %g is not finite, or too large", i + 1, given));
      }
      const double whole = periodic_[a] ? std::floor(given) : 0;
      wrapped[a] = given - whole;
      fraction_[3 * i + a] = wrapped[a];
      wraps_[3 * i + a] = static_cast<int32_t>(whole);
      low[a] = std::min(low[a], wrapped[a]);
      high[a] = std::max(high[a], wrapped[a]);
    }
    const Vector3 point = TimesMatrix(wrapped, lattice_);
    std::copy(point.begin(), point.end(), &points_[3 * i]);
  }
  double box = 1;
  for (int a = 0; a < 3; ++a) {
    axes_[a].span = high[a] - low[a];
    axes_[a].origin = periodic_[a] ? 0 : low[a];
    box *= std::max(1.0, axes_[a].span * Length(lattice_[a]));
  }
  const bool any_periodic = periodic_[0] || periodic_[1] || periodic_[2];
  if (!any_periodic) volume_ = box;
  diameter_ = kFarAway;
  if (!any_periodic) {
    diameter_ = 0;
    for (int a = 0; a < 3; ++a) diameter_ += axes_[a].span * Length(lattice_[a]);
  }
  return absl::OkStatus();
}

int64_t NeighbourSearch::ReachOf(const Axis& axis, double radius) const {
  // Two atoms n bins apart are at least n - 1 widths apart; in a single bin, n less the span of the atoms.
  const double slack = axis.bins == 1 ? axis.span : 1;
  const double reach = radius / (axis.height * axis.width) + slack + 1e-9;
  return static_cast<int64_t>(std::min(reach, 1e9));
}

// What finding all neighbours costs on a grid of boxes about `width` Å wide, in arbitrary units.
double NeighbourSearch::Work(double width, double radius, std::array<int64_t, 3>* bins) const {
  double blocks = 1, targets = 1;
  for (int a = 0; a < 3; ++a) {
    Axis axis = axes_[a];
    const double extent = axis.height * (periodic_[a] ? 1 : axis.span);
    axis.bins = std::clamp<int64_t>(static_cast<int64_t>(std::min(extent / width, 1024.0)), 1, 1024);
    axis.width = (periodic_[a] ? 1 : std::max(axis.span, 1e-9)) / static_cast<double>(axis.bins);
    (*bins)[a] = axis.bins;
    blocks *= static_cast<double>(axis.bins);
    const double tried = 2 * static_cast<double>(ReachOf(axis, radius)) + 1;
    targets *= periodic_[a] ? tried : std::min(tried, static_cast<double>(axis.bins));
  }
  const double n = static_cast<double>(atoms_);
  if (blocks > 4 * n) return kFarAway;
  return n * targets * (4 + std::ceil(n / blocks / 4)) + blocks * targets * 8;
}

void NeighbourSearch::ChooseGrid(double radius) {
  std::array<int64_t, 3> best = {1, 1, 1};
  constexpr int64_t kAlwaysOneBlock = 64;
  if (atoms_ > kAlwaysOneBlock && axes_[0].height > 0) {
    std::array<int64_t, 3> bins;
    double least = Work(kFarAway, radius, &best);
    for (const double part : {1.0, 0.5}) {
      const double work = Work(radius * part, radius, &bins);
      if (work < least) {
        least = work;
        best = bins;
      }
    }
  }
  bool changed = block_count_ == 0;
  for (int a = 0; a < 3; ++a) {
    changed |= axes_[a].bins != best[a];
    axes_[a].bins = best[a];
    axes_[a].width = (periodic_[a] ? 1 : std::max(axes_[a].span, 1e-9)) / static_cast<double>(best[a]);
  }
  if (changed) block_count_ = 0;
}

absl::Status NeighbourSearch::SetRadius(double radius) {
  radius_ = radius;
  aimed_from_ = -1;
  ChooseGrid(radius);
  STOKER_RETURN_IF_ERROR(PlaceImages(radius));
  if (block_count_ == 0) FillBlocks();
  return absl::OkStatus();
}

absl::Status NeighbourSearch::PlaceImages(double radius) {
  const int atom_bits = std::bit_width(static_cast<uint64_t>(atoms_ - 1));
  std::array<int, 3> needed = {};
  double targets = 1;
  int bits = atom_bits, periodic_axes = 0;
  for (int a = 0; a < 3; ++a) {
    Axis& axis = axes_[a];
    axis.reach = periodic_[a] || axis.bins > 1 ? ReachOf(axis, radius) : 0;
    if (!periodic_[a]) axis.reach = std::min(axis.reach, axis.bins - 1);
    targets *= 2 * static_cast<double>(axis.reach) + 1;
    if (!periodic_[a]) continue;
    const int64_t images = (axis.reach + axis.bins - 1) / axis.bins;
    needed[a] = std::bit_width(static_cast<uint64_t>(images)) + 1;
    bits += needed[a];
    ++periodic_axes;
  }
  const bool placed = image_bits_ >= 0;
  bool fits = targets <= static_cast<double>(kMaxTargets) && bits <= 32;
  for (int a = 0; a < 3; ++a) fits &= !placed || needed[a] <= axes_[a].bits;
  if (!fits) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "neighbours within %g Å: too many images of %d atoms; the cell is too small or too flat for this cutoff",
        radius, atoms_));
  }
  if (placed) return absl::OkStatus();
  // What is left is for radii to come.
  const int spare = periodic_axes == 0 ? 0 : (32 - bits) / periodic_axes;
  image_bits_ = 0;
  for (int a = 2; a >= 0; --a) {
    axes_[a].bits = periodic_[a] ? std::min(needed[a] + spare, 24) : 0;
    axes_[a].shift = image_bits_;
    image_bits_ += axes_[a].bits;
  }
  return absl::OkStatus();
}

uint64_t NeighbourSearch::Code(const Image& image) const {
  uint64_t code = 0;
  for (int a = 0; a < 3; ++a) {
    const int64_t zero = axes_[a].bits == 0 ? 0 : int64_t{1} << (axes_[a].bits - 1);
    code |= static_cast<uint64_t>(image[a] + zero) << axes_[a].shift;
  }
  return code;
}

Image NeighbourSearch::Wrapped(uint64_t key) const {
  Image image;
  for (int a = 0; a < 3; ++a) {
    const int64_t zero = axes_[a].bits == 0 ? 0 : int64_t{1} << (axes_[a].bits - 1);
    const uint64_t mask = (uint64_t{1} << axes_[a].bits) - 1;
    image[a] = static_cast<int32_t>(static_cast<int64_t>(key >> axes_[a].shift & mask) - zero);
  }
  return image;
}

void NeighbourSearch::FillBlocks() {
  block_count_ = axes_[0].bins * axes_[1].bins * axes_[2].bins;
  blocks_.Reserve(block_count_);
  block_of_.Reserve(atoms_);
  order_.Reserve(atoms_);
  fill_.Reserve(block_count_ + 1);
  std::fill_n(fill_.data(), block_count_ + 1, 0);
  for (int64_t i = 0; i < atoms_; ++i) {
    int64_t block = 0;
    for (int a = 0; a < 3; ++a) {
      const Axis& axis = axes_[a];
      const auto bin = static_cast<int64_t>((fraction_[3 * i + a] - axis.origin) / axis.width);
      block = block * axis.bins + std::clamp<int64_t>(bin, 0, axis.bins - 1);
    }
    block_of_[i] = static_cast<int32_t>(block);
    ++fill_[block + 1];
  }
  for (int64_t b = 0; b < block_count_; ++b) fill_[b + 1] += fill_[b];
  for (int64_t i = 0; i < atoms_; ++i) order_[fill_[block_of_[i]]++] = static_cast<int32_t>(i);
  const int64_t room = atoms_ + block_count_ * (kBlockPadding - 1);
  for (Buffer<double>* axis : {&x_, &y_, &z_}) axis->Reserve(room);
  ids_.Reserve(room);
  int64_t begin = 0, first = 0;
  for (int64_t b = 0; b < block_count_; ++b) {
    const int64_t count = fill_[b] - first;  // fill_[b] is now where block b ends
    AddBlock(b, {&order_[first], static_cast<size_t>(count)}, begin);
    first += count;
    begin += PaddedAtoms(count);
  }
}

void NeighbourSearch::AddBlock(int64_t block, absl::Span<const int32_t> members, int64_t begin) {
  const auto count = static_cast<int64_t>(members.size());
  Vector3 low, high, centre = {};
  low.fill(kFarAway);
  high.fill(-kFarAway);
  for (int64_t k = 0; k < PaddedAtoms(count); ++k) {
    Vector3 point;
    point.fill(kFarAway);
    if (k < count) point = Point(members[k]);
    x_[begin + k] = point[0];
    y_[begin + k] = point[1];
    z_[begin + k] = point[2];
    ids_[begin + k] = k < count ? static_cast<uint64_t>(members[k]) << image_bits_ : 0;
    for (int a = 0; a < 3 && k < count; ++a) {
      low[a] = std::min(low[a], point[a]);
      high[a] = std::max(high[a], point[a]);
    }
  }
  double radius2 = 0;
  for (int a = 0; a < 3 && count > 0; ++a) centre[a] = (low[a] + high[a]) / 2;
  for (const int32_t i : members) {
    const Vector3 p = Point(i), d = {p[0] - centre[0], p[1] - centre[1], p[2] - centre[2]};
    radius2 = std::max(radius2, Dot(d, d));
  }
  blocks_[block] = {begin, count, centre, std::sqrt(radius2)};
}

// Lists the images of blocks that may hold a neighbour of an atom of `block`.
void NeighbourSearch::AimFrom(int64_t block) {
  aimed_from_ = block;
  target_count_ = 0;
  target_atoms_ = 0;
  const std::array<int64_t, 3> bin = {block / (axes_[1].bins * axes_[2].bins), block / axes_[2].bins % axes_[1].bins,
                                      block % axes_[2].bins};
  std::array<int64_t, 3> low, high;
  for (int a = 0; a < 3; ++a) {
    low[a] = bin[a] - axes_[a].reach;
    high[a] = bin[a] + axes_[a].reach;
    if (periodic_[a]) continue;
    low[a] = std::max<int64_t>(low[a], 0);
    high[a] = std::min(high[a], axes_[a].bins - 1);
  }
  std::array<int64_t, 3> at;
  for (at[0] = low[0]; at[0] <= high[0]; ++at[0]) {
    for (at[1] = low[1]; at[1] <= high[1]; ++at[1]) {
      targets_.Reserve(target_count_ + static_cast<size_t>(high[2] - low[2] + 1), target_count_);
      for (at[2] = low[2]; at[2] <= high[2]; ++at[2]) AimAt(block, at);
    }
  }
}

void NeighbourSearch::AimAt(int64_t from, const std::array<int64_t, 3>& bin) {
  Image image;
  int64_t index = 0;
  for (int a = 0; a < 3; ++a) {
    const int64_t bins = axes_[a].bins;
    const int64_t whole = bins == 1 ? bin[a] : FloorDivide(bin[a], bins);
    image[a] = static_cast<int32_t>(periodic_[a] ? whole : 0);
    index = index * bins + bin[a] - image[a] * bins;
  }
  const Block& block = blocks_[index];
  if (block.count == 0) return;
  SearchTarget target;
  const Vector3 shift = TimesMatrix({double(image[0]), double(image[1]), double(image[2])}, lattice_);
  Vector3 away;
  for (int a = 0; a < 3; ++a) {
    target.shift[a] = shift[a];
    target.centre[a] = block.centre[a] + shift[a];
    away[a] = target.centre[a] - blocks_[from].centre[a];
  }
  // A little more than enough, for what rounding may do.
  const double reach = (radius_ + block.radius) * (1 + 1e-6);
  const double limit = reach + blocks_[from].radius * (1 + 1e-6);
  if (Dot(away, away) > limit * limit) return;
  target.reach2 = reach * reach;
  target.code = Code(image);
  target.begin = block.begin;
  target.count = block.count;
  targets_[target_count_++] = target;
  target_atoms_ += block.count;
}

double NeighbourSearch::RadiusFor(int64_t k) const {
  constexpr double kSpareAtoms = 1.6;
  const double wanted = kSpareAtoms * static_cast<double>(k) * volume_ / static_cast<double>(atoms_);
  return std::cbrt(wanted * 3 / (4 * std::numbers::pi));
}

absl::StatusOr<size_t> NeighbourSearch::Collect(int32_t atom, Buffer<uint64_t>& keys, size_t at) {
  if (block_of_[atom] != aimed_from_) AimFrom(block_of_[atom]);
  uint64_t* out = keys.Reserve(at + target_atoms_ + kBlockPadding, at) + at;
  const Vector3 point = Point(atom);
  const double limit = radius_ * (1 + 1e-6);
  const SearchAtoms atoms = {x_.data(), y_.data(), z_.data(), ids_.data()};
  const size_t count = kernels_->collect(atoms, targets_.data(), target_count_, point.data(), limit * limit, out);
  static const hwy::Sorter sort;
  sort(out, count, hwy::SortAscending());
  // The first is the atom itself, at distance 0, or another one on the same spot.
  if (count > 1 && Distance(out[1]) < kSameSpot) {
    return SameSpot(atom, Atom(out[0]) == atom ? Atom(out[1]) : Atom(out[0]), Distance(out[1]));
  }
  std::copy(out + 1, out + count, out);
  return count - 1;
}

int64_t NeighbourSearch::CountClose(absl::Span<const uint64_t> keys) {
  int64_t close = 0;
  while (close < static_cast<int64_t>(keys.size()) && Distance(keys[close]) < kClose) ++close;
  return close;
}

Image NeighbourSearch::ImageOf(int32_t source, uint64_t key) const {
  Image image = Wrapped(key);
  const int32_t atom = Atom(key);
  for (int a = 0; a < 3; ++a) image[a] += wraps_[3 * source + a] - wraps_[3 * atom + a];
  return image;
}

Vector3 NeighbourSearch::Displacement(int32_t source, uint64_t key) const {
  const Image image = Wrapped(key);
  const Vector3 shift = TimesMatrix({double(image[0]), double(image[1]), double(image[2])}, lattice_);
  const Vector3 from = Point(source), to = Point(Atom(key));
  return {(to[0] - from[0]) + shift[0], (to[1] - from[1]) + shift[1], (to[2] - from[2]) + shift[2]};
}

uint64_t NeighbourSearch::Reversed(int32_t source, uint64_t key) const {
  const Image image = Wrapped(key);
  return (key >> 32 << 32) | static_cast<uint64_t>(source) << image_bits_ | Code({-image[0], -image[1], -image[2]});
}

}  // namespace stoker::transforms
