"""The texts whose ids the tokenizer tests compare: many scripts, white space, code, oddities."""

import random

WORDS = """Hello world
The quick brown fox jumps over the lazy dog.
don't can't we'll they've I'm you're he'd it's
DON'T CAN'T WE'LL THEY'VE I'M YOU'RE HE'D IT'S
'tis 'twas rock'n'roll o'clock 's 't 're '' ''' 'x
naive cafe resume, na\u00efve caf\u00e9 r\u00e9sum\u00e9
na\u0131\u0308ve cafe\u0301 re\u0301sume\u0301
Gr\u00fc\u00dfe aus K\u00f6ln, Stra\u00dfe, \u1e9e
L'\u00e9t\u00e9 \u00e0 No\u00ebl, c\u0153ur et \u0153uvre
El ni\u00f1o comi\u00f3 pi\u00f1a; \u00bfqu\u00e9 tal? \u00a1ol\u00e9!
S\u00e3o Paulo, cora\u00e7\u00e3o, amanh\u00e3
Za\u017c\u00f3\u0142\u0107 g\u0119\u015bl\u0105 ja\u017a\u0144
P\u0159\u00edli\u0161 \u017elu\u0165ou\u010dk\u00fd k\u016f\u0148 \u00fap\u011bl \u010f\u00e1belsk\u00e9 \u00f3dy
\u0130stanbul'da \u0131l\u0131k \u015feftali, \u011f\u00fczel
\u00de\u00f3rr \u00e6tti a\u00f0 vera h\u00e9r
\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440! \u041a\u0430\u043a \u0434\u0435\u043b\u0430?
\u0429\u0443\u043a\u0430 \u0438 \u0451\u0436\u0438\u043a \u044a\u044b\u044d\u044e\u044f
\u0423\u043a\u0440\u0430\u0457\u043d\u0441\u044c\u043a\u0430 \u043c\u043e\u0432\u0430 \u0491\u0454\u0456\u0457
\u039a\u03b1\u03bb\u03b7\u03bc\u03ad\u03c1\u03b1 \u03ba\u03cc\u03c3\u03bc\u03b5 \u03c2\u03c3
\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd, \u05de\u05d4 \u05e9\u05dc\u05d5\u05de\u05da?
\u05d1\u05bc\u05b0\u05e8\u05b5\u05d0\u05e9\u05b4\u05c1\u05d9\u05ea
\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645\u060c \u0643\u064a\u0641 \u062d\u0627\u0644\u0643\u061f
\u0627\u064e\u0644\u0652\u0639\u064e\u0631\u064e\u0628\u0650\u064a\u0651\u064e\u0629\u064f \u0661\u0662\u0663
\u0633\u0644\u0627\u0645 \u062f\u0646\u06cc\u0627 \u06af\u0686\u067e\u0698 \u06f4\u06f5\u06f6
\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e \u0967\u0968\u0969
\u09a8\u09ae\u09b8\u09cd\u0995\u09be\u09b0 \u09ac\u09bf\u09b6\u09cd\u09ac
\u0ba4\u0bae\u0bbf\u0bb4\u0bcd \u0bae\u0bca\u0bb4\u0bbf
\u0c24\u0c46\u0c32\u0c41\u0c17\u0c41 \u0c2d\u0c3e\u0c37
\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e0a\u0e32\u0e27\u0e42\u0e25\u0e01 \u0e51\u0e52\u0e53
\u0eaa\u0eb0\u0e9a\u0eb2\u0e8d\u0e94\u0eb5 \u1798\u17bb\u1781 \u1019\u103c\u1014\u103a\u1019\u102c
\u4f60\u597d\uff0c\u4e16\u754c\uff01\u4eca\u5929\u5929\u6c14\u5f88\u597d\u3002
\u7e41\u9ad4\u4e2d\u6587\u300c\u5f15\u865f\u300d\u6e2c\u8a66
\u3053\u3093\u306b\u3061\u306f\u4e16\u754c\u3001\u30ab\u30bf\u30ab\u30ca\u3068\u6f22\u5b57
\uff8a\uff9d\uff76\uff78 \uff21\uff22\uff23 \uff11\uff12\uff13
\uc548\ub155\ud558\uc138\uc694 \uc138\uacc4
\u1112\u1161\u11ab\u1100\u1173\u11af
\u10d2\u10d0\u10db\u10d0\u10e0\u10ef\u10dd\u10d1\u10d0 \u0532\u0561\u0580\u0565\u057e
\u1230\u120b\u121d \u12d3\u1208\u121d
\u13a3\u13b3\u13a9 \u1401\u1403\u1405 \u16a0\u16a2\u16a6 \u2c00\u2c30
\u0f56\u0f7c\u0f51\u0f0b\u0f66\u0f90\u0f51 \u1820\u1823\u1829\u182d\u182d\u1823\u182f
Vi\u1ec7t Nam \u0111\u1ea5t n\u01b0\u1edbc, Vie\u0323\u0302t
\U00010330\U00010331 \U00012000 \U00013000 \U0001d400\U0001d7d8 \U00020000\U0002a6d6
\u2460\u2461 \u2160\u2161 \u00bd\u00be \u00b2\u00b3 \u0be7\u0be8 \U0001d7ce\U0001d7d9
""".splitlines()

EMOJI = [
    "\U0001f600", "\U0001f600\U0001f601\U0001f602", "I \u2764\ufe0f you", "\u2764",
    "\U0001f44d\U0001f3fb\U0001f44d\U0001f3ff", "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466",
    "\U0001f9d1\U0001f3fd\u200d\U0001f91d\u200d\U0001f9d1\U0001f3fb", "\U0001f3f3\ufe0f\u200d\U0001f308",
    "\U0001f1e9\U0001f1ea\U0001f1eb\U0001f1f7\U0001f1ef\U0001f1f5", "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "1\ufe0f\u20e3 2\ufe0f\u20e3 #\ufe0f\u20e3", "ok\U0001f44dok", " \U0001f600 ", "\U0001fae0\U0001fae8\U0001f6dc", "\u263a\ufe0f\u2600\u2601\u2602",
    "\U0001f469\U0001f3fe\u200d\U0001f4bb writes code",
]

SPACES = [
    "", " ", "  ", "   ", "    ", "     ", " " * 8, " " * 15, " " * 16, " " * 17, " " * 31, " " * 32, " " * 33, " " * 64, " " * 100,
    "\t", "\t\t", "\t\t\t", "\t" * 20, "\t" * 40, "\n", "\n\n", "\n\n\n", "\n" * 10, "\n" * 31, "\n" * 32, "\n" * 70,
    "\r", "\r\n", "\r\n\r\n", "\n\r", "\v", "\f", "\x85", "\u00a0", "\u00a0\u00a0", "\u1680", "\u2003\u2003", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000", "\u3000\u3000x",
    "\u180e", "\u200b", "\u200c\u200d", "\u2060", "\ufeff", "\ufeffhello", "he\ufeffllo",
    " a", "  a", "   a", "a ", "a  ", "a   ", "a b", "a  b", "a   b", "a    b", "\ta", "\t\ta", "a\t", "a\tb", "a\t\tb", "a \t b", " \t ", "\t \t",
    "\na", "\n\na", "a\n", "a\n\n", "a\nb", "a\n\nb", "a\n\n\nb", "a \n b", "a\n b", "a \nb", "a\n  b", "a\n\tb", "a\r\nb", "a\r\n\r\nb", " \n", "\n ", " \n \n ", "  \n\n  ", "\n \n", "\t\n\t",
    "a\u00a0b", "a \u00a0 b", "a\u3000b", "a\u2003 b", "x\u2028y", "x\x85y", "\u00a0a", " \u00a0a", "a\x0bb\x0cc",
    "word" + " " * 40 + "word", "line one\n    indented\n        more\n\tback", "trailing   \n   leading",
    "1 2  3   4", " 1", "  1", "1 ", "!  !", " !", "  !", "! ", "\u2581", "\u2581\u2581", "a\u2581b", "\u2581a", " \u2581", "\u2581 ", "  \u2581\u2581  ",
]

NUMBERS = """0
1
12
123
1234
12345
1234567890
3.14159
-273.15
1,234,567.89
1e10 1.5E-7 0x1F 0b1010 0o777
2024-02-29T12:34:56Z
192.168.0.1:8080
+49 (0)221 123456
50% $99.99 \u20ac1.000,00 \u00a35 \u00a5100
a1b2c3 abc123def 123abc 4x4 h2o
v1.2.3-rc.4+build5
\u0663\u0664\u0665 \u096a\u096b \u0e55\u0e56 \uff14\uff15 \u2167 \u00bc \u2084 \u3289
x\u00b2+y\u00b2=z\u00b2
1/2 3\u20444
007 00000000000000000000
12:30pm 5th 21st 3rd""".splitlines()

CODE = [
    "def f(x):\n    return x + 1\n", "fn main() {\n    println!(\"{}\", 1 << 3);\n}\n", "#include <stdio.h>\nint main(void) { return 0; }\n",
    "for (let i = 0; i < 10; i++) { console.log(`${i}`); }", "SELECT * FROM users WHERE id = 'x' -- comment", "<html><body><p class=\"a\">Hi</p></body></html>",
    "<table><tr><td>1</td></tr></table>", "<b>bold</b> <i>it</i> <ul><li>x</li></ul>", "<h1>T</h1>\n<h2>t</h2>", "<table", "table>", "< table >", "<TABLE>", "</td></tr>\n", "<strong><em><u><s><sub><sup><code>",
    "{\"key\": [1, 2.5, null, true], \"s\": \"a\\\"b\\\\n\"}", "x = {'a': 1, 'b': [2, 3]}", "a = b ? c : d;", "if (a && b || !c) {}", "x->y.z::w", "a<b>c", "a+=1; b-=2; c*=3; d/=4; e%=5; f^=6;",
    "https://example.com/path?query=1&other=two#frag", "user.name+tag@example.co.uk", "C:\\Users\\name\\file.txt", "/usr/local/bin/python3", "git commit -m \"fix: a bug\" --no-verify",
    "\\frac{a}{b} $x^2$ \\alpha", "# Title\n\n- item\n  - sub\n\n```rust\nlet x = 1;\n```\n", "| a | b |\n|---|---|\n| 1 | 2 |", "\x1b[31mred\x1b[0m", "^(?:a|b)+$", "%s %d %5.2f", "\t\tif x:\n\t\t\tpass",
    "snake_case camelCase PascalCase SCREAMING_CASE kebab-case", "__init__", "a__b", "...", "....", "--", "---", "----", "====", "****", "____", "!!!", "???", "?!", "\u2026\u2014\u2013", "\u201cquoted\u201d \u2018x\u2019", "\u00abfr\u00bb", "([{<>}])", "@#$%^&*", "~`|\\/", ";:,.", "\u2192\u2190\u2191\u2193 \u2264\u2265\u2260 \u221e\u2211\u222b", "\u2588\u2593\u2592\u2591 \u2500\u2502\u250c\u2510",
]

CONTROLS = [chr(c) for c in range(32)] + ["\x7f", "\x80", "\x81", "\x9f"] + [
    "a\x00b", "\x00\x00", "a\x01\x02\x03b", "\x07bell\x08", "x\x7fy", "\x1f\x1e\x1d\x1c", "\u0600\u0601", "\u061c\u200e\u200f\u202a\u202c",
    "\ufffd", "\ufffe", "\uffff", "\ufdd0\ufdef", "\ue000", "\uf8ff", "\U000f0000", "\U0010fffd", "\U0010ffff", "\U000e0001", "\u0300", "a\u0300", "\u0301\u0302\u0303", "e\u0301\u0323", "Z\u0351\u036b\u0343\u036a", "\u0e01\u0e33", "\u0378", "\u2fe0", "\U0001fbff", "\ufb01 \ufb03", "\u212b\u212a", "\u1e9b\u0323", "\u017f '\u017f x'\u017f",
]

LONG = [
    "a" * 50, "a" * 1000, "ab" * 300, "Donaudampfschifffahrtselektrizit\u00e4tenhauptbetriebswerkbauunterbeamtengesellschaft",
    "Llanfairpwllgwyngyllgogerychwyrndrobwllllantysiliogogogoch", "\u4e00" * 80, "0" * 60, "!" * 90, "\u0e01" * 40, "xyz" * 100, "\U0001f600" * 30,
    "pneumonoultramicroscopicsilicovolcanoconiosis" * 4, "aGVsbG8gd29ybGQhIFRoaXMgaXMgYmFzZTY0IGVuY29kZWQgdGV4dC4=", "deadbeef" * 16, "-" * 200, "=" * 33, "." * 50,
]

SPECIAL = [
    "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|im_start|>user\nHi<|im_end|>\n", "a<|im_end|>b", " <|im_end|> ", "<|im_end|><|im_end|>", "<repo_name>x<file_sep>", "<|im_end", "im_end|>", "<|IM_END|>", "<||im_end|>", "<|im_end|>>", "<<|im_end|>",
    "<start_of_turn>", "<end_of_turn>", "<start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n", "<bos>", "<eos>", "<bos><bos>x", "<pad>", "<unk>", "<mask>", "[multimodal]", "<unused0>", "<unused99>x", "<unused6241>", "<start_of_image>", "<0x0A>", "<0x00><0xFF>", "<s>", "</s>", "[INST] x [/INST]", "<eos>\n\n\n<bos>", "  <eos>  ", "a <start_of_turn> b",
]


def mixed():
    """Texts drawn from all the others, the same on every run."""
    draw = random.Random(20)
    pool = WORDS + EMOJI + SPACES + NUMBERS + CODE + CONTROLS + SPECIAL
    return ["".join(draw.choice(pool) for _ in range(draw.randint(2, 6))) for _ in range(120)]


def texts():
    """All texts, without repetition."""
    return list(dict.fromkeys(WORDS + EMOJI + SPACES + NUMBERS + CODE + CONTROLS + LONG + SPECIAL + mixed()))
