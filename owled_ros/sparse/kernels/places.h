// Where the values of a mask's byte go, as byte shuffles.
#ifndef OWLED_PLACES_H
#define OWLED_PLACES_H

#include <cstdint>

namespace owled {

// of[bits]: for each byte of the expanded values the byte that comes there, 0x80 for none. Values
// of four bytes are expanded four columns at a time (16 entries), smaller ones eight (256).
template <int Size>
struct BytePlaces {
  static constexpr int columns = Size == 4 ? 4 : 8;
  alignas(16) uint8_t of[1 << columns][columns * Size];
};

template <int Size>
constexpr BytePlaces<Size> byte_places() {
  BytePlaces<Size> places{};
  for (int bits = 0; bits < 1 << places.columns; ++bits) {
    int next = 0;
    for (int column = 0; column < places.columns; ++column) {
      const bool set = bits >> column & 1;
      for (int byte = 0; byte < Size; ++byte)
        places.of[bits][column * Size + byte] = set ? next * Size + byte : 0x80;
      next += set;
    }
  }
  return places;
}

}  // namespace owled

#endif
