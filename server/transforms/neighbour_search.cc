// SPDX-License-Identifier: Apache-2.0
#include "server/transforms/neighbour_search.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "absl/strings/str_format.h"
#include "shared/base/status_macros.h"

namespace stoker::transforms {
namespace {

constexpr double kMaxCoordinate = 1e8;
// Below this share of the box around its vectors a lattice has no volume.
constexpr double kMinRelativeVolume = 1e-6;
// Images of blocks that one block may look at.
constexpr int64_t kMaxTargets = int64_t{1} << 24;
constexpr size_t kFewKeys = 64;
constexpr float kSameSpot = 1e-3f;
constexpr double kFarAway = std::numeric_limits<double>::infinity();
// By how much a bound is widened for what rounding may do.
constexpr double kEnough = 1 + 1e-6;

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
  wrapped_ = false;
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
      wrapped_ |= whole != 0;
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

// What finding all neighbours costs on a grid of boxes about `width` Å wide, in instructions of a processor with four
// lanes; only for comparison.
double NeighbourSearch::Work(double width, double radius, std::array<int64_t, 3>* bins) const {
  double blocks = 1, tried = 1;
  Vector3 diagonal = {};
  for (int a = 0; a < 3; ++a) {
    Axis axis = axes_[a];
    const double extent = axis.height * (periodic_[a] ? 1 : axis.span);
    axis.bins = std::clamp<int64_t>(static_cast<int64_t>(std::min(extent / width, 1024.0)), 1, 1024);
    axis.width = (periodic_[a] ? 1 : std::max(axis.span, 1e-9)) / static_cast<double>(axis.bins);
    (*bins)[a] = axis.bins;
    blocks *= static_cast<double>(axis.bins);
    const double along = 2 * static_cast<double>(ReachOf(axis, radius)) + 1;
    tried *= periodic_[a] ? along : std::min(along, static_cast<double>(axis.bins));
    for (int c = 0; c < 3; ++c) diagonal[c] += std::abs(lattice_[a][c]) * axis.width / 2;
  }
  const double n = static_cast<double>(atoms_), in_block = n / blocks, density = n / volume_;
  if (blocks > 4 * n) return kFarAway;
  const double block_radius = Length(diagonal);
  const auto sphere = [](double r) { return 4 * std::numbers::pi / 3 * r * r * r; };
  const double images = std::min(tried, density / in_block * sphere(radius + 2 * block_radius));
  const double near = std::min(tried * in_block, density * sphere(radius + block_radius));
  return blocks * (tried * 20 + images * (30 + 30 * std::ceil(in_block / 4))) + n * near / 4 * 20;
}

void NeighbourSearch::ChooseGrid(double radius) {
  std::array<int64_t, 3> best = {1, 1, 1};
  constexpr int64_t kAlwaysOneBlock = 12;
  if (atoms_ > kAlwaysOneBlock && axes_[0].height > 0) {
    std::array<int64_t, 3> bins;
    double least = Work(kFarAway, radius, &best);
    for (const double width : {radius, radius / 2, std::cbrt(8 * volume_ / static_cast<double>(atoms_))}) {
      const double work = Work(width, radius, &bins);
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

int64_t NeighbourSearch::ZeroOf(const Axis& axis) { return axis.bits == 0 ? 0 : int64_t{1} << (axis.bits - 1); }

uint64_t NeighbourSearch::Code(const Image& image) const {
  uint64_t code = 0;
  for (int a = 0; a < 3; ++a) code |= static_cast<uint64_t>(image[a] + ZeroOf(axes_[a])) << axes_[a].shift;
  return code;
}

Image NeighbourSearch::Wrapped(uint64_t key) const {
  Image image;
  for (int a = 0; a < 3; ++a) {
    const uint64_t mask = (uint64_t{1} << axes_[a].bits) - 1;
    image[a] = static_cast<int32_t>(static_cast<int64_t>(key >> axes_[a].shift & mask) - ZeroOf(axes_[a]));
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

// The bins along an axis that may hold a neighbour of an atom in `bin`.
void NeighbourSearch::ListSteps(int a, int64_t bin) {
  const Axis& axis = axes_[a];
  int64_t low = bin - axis.reach, high = bin + axis.reach;
  if (!periodic_[a]) low = std::max<int64_t>(low, 0), high = std::min(high, axis.bins - 1);
  steps_[a].clear();
  for (int64_t at = low; at <= high; ++at) {
    const int64_t image = periodic_[a] ? FloorDivide(at, axis.bins) : 0;
    Step step = {at - image * axis.bins, static_cast<uint64_t>(image + ZeroOf(axis)) << axis.shift, {}};
    for (int c = 0; c < 3; ++c) step.shift[c] = static_cast<double>(image) * lattice_[a][c];
    steps_[a].push_back(step);
  }
}

// Lists what may be a neighbour of an atom of `block`.
void NeighbourSearch::AimFrom(int64_t block) {
  aimed_from_ = block;
  images_.clear();
  ListSteps(0, block / (axes_[1].bins * axes_[2].bins));
  ListSteps(1, block / axes_[2].bins % axes_[1].bins);
  ListSteps(2, block % axes_[2].bins);
  const Block& from = blocks_[block];
  for (const Step& s0 : steps_[0]) {
    for (const Step& s1 : steps_[1]) {
      Vector3 shift01;
      for (int c = 0; c < 3; ++c) shift01[c] = s0.shift[c] + s1.shift[c];
      for (const Step& s2 : steps_[2]) {
        const Block& block = blocks_[(s0.bin * axes_[1].bins + s1.bin) * axes_[2].bins + s2.bin];
        SearchImage image = {{}, s0.code | s1.code | s2.code, block.begin, block.count};
        Vector3 away;
        for (int c = 0; c < 3; ++c) {
          image.shift[c] = shift01[c] + s2.shift[c];
          away[c] = block.centre[c] + image.shift[c] - from.centre[c];
        }
        const double limit = (radius_ + block.radius + from.radius) * kEnough;
        if (block.count > 0 && Dot(away, away) <= limit * limit) images_.push_back(image);
      }
    }
  }
  ListNear(from);
}

void NeighbourSearch::ListNear(const Block& from) {
  size_t room = 2 * kBlockPadding;
  for (const SearchImage& image : images_) room += image.count;
  near_ = {near_x_.Reserve(room),
           near_y_.Reserve(room),
           near_z_.Reserve(room),
           {near_shift_x_.Reserve(room), near_shift_y_.Reserve(room), near_shift_z_.Reserve(room)},
           near_id_.Reserve(room)};
  const SearchAtoms atoms = {x_.data(), y_.data(), z_.data(), ids_.data()};
  const double reach = (radius_ + from.radius) * kEnough;
  near_count_ = 0;
  for (const SearchImage& image : images_) {
    near_count_ += kernels_->add_near(atoms, image, from.centre.data(), reach * reach, near_, near_count_);
  }
  for (double* const axis : {near_.x, near_.y, near_.z}) std::fill_n(axis + near_count_, kBlockPadding, kFarAway);
}

double NeighbourSearch::RadiusFor(int64_t k) const {
  constexpr double kSpareAtoms = 1.6;
  const double wanted = kSpareAtoms * static_cast<double>(k) * volume_ / static_cast<double>(atoms_);
  return std::cbrt(wanted * 3 / (4 * std::numbers::pi));
}

// The two nearest of `keys` tell which atoms are on one spot; one of them is `atom` itself.
absl::Status NeighbourSearch::SameSpot(int32_t atom, uint64_t* keys, size_t count) const {
  std::partial_sort(keys, keys + 2, keys + count);
  const int32_t other = Atom(keys[0]) == atom ? Atom(keys[1]) : Atom(keys[0]);
  const double distance = Distance(keys[1]);
  if (atom == other) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "lattice: atom %d is %g Å from its own image; is the lattice in another unit?", atom + 1, distance));
  }
  return absl::InvalidArgumentError(
      absl::StrFormat("atoms %d and %d are on the same spot (%g Å apart); remove one of them",
                      std::min(atom, other) + 1, std::max(atom, other) + 1, distance));
}

absl::StatusOr<size_t> NeighbourSearch::Collect(int32_t atom, Buffer<uint64_t>& keys, size_t at) {
  if (block_of_[atom] != aimed_from_) AimFrom(block_of_[atom]);
  uint64_t* const found = unsorted_.Reserve(near_count_ + 2 * kBlockPadding);
  const Vector3 point = Point(atom);
  const double limit = radius_ * kEnough;
  const size_t count = kernels_->collect(near_, near_count_, point.data(), limit * limit, found);
  uint64_t* const out = keys.Reserve(at + count, at) + at;
  Sort(found, count, out);
  if (count > 1 && Distance(out[0]) < kSameSpot) return SameSpot(atom, found, count);
  return count - 1;
}

// The least is left out: it is the atom itself, at distance 0, or another one on the same spot.
void NeighbourSearch::Sort(const uint64_t* found, size_t count, uint64_t* sorted) {
  if (count <= kFewKeys) return kernels_->sort_few(found, count, sorted);
  const SortScratch scratch = {shell_.Reserve(count + kBlockPadding), shell_place_.Reserve(count),
                               shell_end_.Reserve(SortBuckets(count) + 1), shells_.Reserve(count + kBlockPadding)};
  kernels_->sort_many(found, count, static_cast<float>(radius_ * kEnough), scratch, sorted);
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

void NeighbourSearch::ListEdges(int32_t source, absl::Span<const uint64_t> keys, const EdgeColumns& out) const {
  KeyImage code;
  for (int a = 0; a < 3; ++a) {
    code.shift[a] = axes_[a].shift;
    code.mask[a] = (uint32_t{1} << axes_[a].bits) - 1;
    code.zero[a] = static_cast<int32_t>(ZeroOf(axes_[a]));
  }
  code.atom_shift = image_bits_;
  kernels_->list_edges(code, points_.data(), lattice_[0].data(), &points_[3 * source], keys.data(), keys.size(), out);
  for (size_t e = 0; wrapped_ && e < keys.size(); ++e) {
    const int32_t atom = out.destination[e];
    for (int a = 0; a < 3; ++a) out.image[3 * e + a] += wraps_[3 * source + a] - wraps_[3 * atom + a];
  }
}

uint64_t NeighbourSearch::Reversed(int32_t source, uint64_t key) const {
  const Image image = Wrapped(key);
  return (key >> 32 << 32) | static_cast<uint64_t>(source) << image_bits_ | Code({-image[0], -image[1], -image[2]});
}

}  // namespace stoker::transforms
