/**
 * The natural order of strings: numbers in them compare by value.
 */
export const compareNatural = (a: string, b: string): number => {
  const [as, bs] = [a.split(/(\d+)/), b.split(/(\d+)/)]
  for (const [i, one] of as.entries()) {
    const other = bs[i]
    if (other === undefined) return 1
    // Odd places hold the numbers, of which the longer one is the larger.
    const difference = i % 2 === 1 ? significantDigits(one) - significantDigits(other) : 0
    if (difference !== 0) return difference
    if (one !== other) return one < other ? -1 : 1
  }
  return as.length - bs.length
}

const significantDigits = (number: string): number => number.replace(/^0+/, "").length
