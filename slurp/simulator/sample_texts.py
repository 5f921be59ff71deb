"""Texts, names and tags of the simulated accounts. All of it is invented for this purpose."""

from __future__ import annotations

# Share in percent, sentence templates, and topics to insert for {}.
LANGUAGES: dict[str, tuple[float, tuple[str, ...], tuple[str, ...]]] = {
    "en": (
        46,
        (
            "Finally finished the {} I started in spring.",
            "Does anybody else feel that {} is better on a rainy day?",
            "Small win: {} worked at the first try.",
            "I could talk about {} for hours, sorry in advance.",
            "Good morning to everyone who thinks about {} before breakfast.",
            "Unpopular opinion, but {} was never the problem.",
            "My neighbour taught me {} over the fence today.",
            "Three years of {} and I still learn something every week.",
            "Looking for book recommendations about {}, old ones welcome.",
            "The train is late again, so here are my thoughts on {}.",
            "Note to self: do not try {} after midnight.",
            "We walked along the harbour and talked about {} until dark.",
            "New blog post, this time about {}.",
            "The cat has opinions on {} and shares them loudly.",
        ),
        (
            "watercolour",
            "sourdough",
            "the garden",
            "birdwatching",
            "my old bicycle",
            "shortwave radio",
            "the local election",
            "knitting",
            "chess",
            "public libraries",
            "night photography",
            "the new timetable",
            "tomato seedlings",
            "vintage synthesizers",
        ),
    ),
    "ja": (
        18,
        (
            "今日は{}の話をしたい。",
            "おはようございます、{}日和ですね。",
            "やっと{}が終わった、眠い。",
            "駅前で{}を見つけて嬉しくなった。",
            "週末は{}をのんびり楽しむ予定です。",
            "{}って奥が深いなあ。",
            "夕焼けがきれいで、{}を忘れてしまった。",
            "新しい{}を描きました、見てください。",
            "雨の日の{}もいいものです。",
            "猫に{}を邪魔された。",
        ),
        ("散歩", "珈琲", "イラスト", "写真", "読書", "編み物", "料理", "将棋", "鉄道", "星空"),
    ),
    "pt": (
        9,
        (
            "Bom dia! Hoje é dia de {}.",
            "Alguém mais passou a noite pensando em {}?",
            "Não há nada como {} depois da chuva.",
            "Terminei agora, foram três horas de {}.",
            "A minha avó sabia tudo sobre {}.",
            "Quem diria que {} ia dar certo à primeira.",
            "Fui à praia e só se falava de {}.",
            "Preciso de conselhos sobre {}, por favor.",
        ),
        ("futebol", "café", "pão de queijo", "música", "jardinagem", "capoeira", "cinema", "poesia"),
    ),
    "de": (
        6,
        (
            "Guten Morgen, heute dreht sich alles um {}.",
            "Endlich Feierabend und Zeit für {}.",
            "Wer hätte gedacht, dass {} so glücklich macht?",
            "Die Bahn steht, also denke ich über {} nach.",
            "Mein Nachbar schwört auf {}, ich bin mir nicht so sicher.",
            "Übermorgen erzähle ich euch mehr über {}.",
            "Kleine Freude des Tages: {}.",
            "Ich suche ein gutes Buch über {}.",
        ),
        ("Radfahren", "Käsekuchen", "Fußball", "Gemüse", "Brettspiele", "Straßenbahnen", "Pilze", "Lyrik"),
    ),
    "es": (
        6,
        (
            "Buenos días, hoy toca {}.",
            "¿Soy la única persona que sueña con {}?",
            "Por fin terminé mi proyecto de {}.",
            "Mañana os cuento más sobre {}.",
            "Nada mejor que {} un domingo por la tarde.",
            "Mi hermana pequeña me enseñó algo nuevo de {}.",
            "Otra vez lluvia, así que más tiempo para {}.",
        ),
        ("la guitarra", "el ajedrez", "la montaña", "las acuarelas", "el fútbol", "la cocina"),
    ),
    "ko": (
        4,
        (
            "오늘은 {} 하기 좋은 날이네요.",
            "드디어 {} 끝냈다!",
            "비 오는 날에는 역시 {} 생각이 나요.",
            "주말에 {} 같이 하실 분?",
            "고양이가 {} 방해해서 웃었어요.",
            "새로운 {} 사진을 올려 봅니다.",
        ),
        ("산책", "커피", "그림", "독서", "요리", "음악"),
    ),
    "fr": (
        4,
        (
            "Bonjour à tous, aujourd'hui c'est {}.",
            "Quelqu'un d'autre a rêvé de {} cette nuit ?",
            "J'ai enfin terminé mon article sur {}.",
            "Rien ne vaut {} un jour de pluie.",
            "À la bibliothèque, tout le monde parlait de {}.",
            "Ça fait trois heures que je pense à {}.",
        ),
        ("la photographie", "le vélo", "la forêt", "le fromage", "le théâtre", "l'astronomie"),
    ),
    "ar": (
        2,
        (
            "صباح الخير، اليوم نتحدث عن {}.",
            "لا شيء أجمل من {} في المساء.",
            "أنهيت اليوم كتابا عن {}.",
            "من يحب {} مثلي؟",
            "المطر ينزل وأنا أفكر في {}.",
        ),
        ("القهوة", "الشعر", "البحر", "الموسيقى", "الحديقة"),
    ),
    "tr": (
        2,
        (
            "Günaydın, bugün {} günü.",
            "Yağmurlu havada {} başka güzel.",
            "Sonunda {} işini bitirdim.",
            "Komşum bana {} öğretti.",
        ),
        ("çay", "şiir", "bahçe", "satranç", "fotoğraf"),
    ),
    "uk": (
        1,
        ("Доброго ранку, сьогодні день про {}.", "Нарешті маю час на {}.", "Хто ще любить {}?"),
        ("каву", "вірші", "подорожі", "музику"),
    ),
    "nl": (
        1,
        (
            "Goedemorgen, vandaag gaat het over {}.",
            "Eindelijk tijd voor {}.",
            "Wie houdt er nog meer van {}?",
        ),
        ("fietsen", "koffie", "schaatsen", "het weer"),
    ),
    "th": (
        1,
        ("สวัสดีตอนเช้า วันนี้คิดถึง{}", "ในที่สุดก็ได้เวลาสำหรับ{}", "ฝนตกแล้วคิดถึง{}"),
        ("กาแฟ", "ดนตรี", "ทะเล", "แมว"),
    ),
}

EMOJI = ("☀️", "🌧️", "🐈", "🦋", "🎉", "😂", "🙏🏽", "❤️", "👩‍🚀", "🍵", "🚲", "📚", "🌊", "🇧🇷", "✨", "🥐")

# In order of popularity: drawn with a Zipf-like distribution.
TAGS = (
    "photography",
    "art",
    "caturday",
    "music",
    "booksky",
    "gardening",
    "イラスト",
    "news",
    "football",
    "birds",
    "linux",
    "写真",
    "python",
    "film",
    "cycling",
    "baking",
    "astronomy",
    "futebol",
    "knitting",
    "history",
    "opensource",
    "poesía",
    "climate",
    "trains",
    "chess",
    "Straßenbahn",
    "coffee",
    "고양이",
    "mushrooms",
    "maps",
    "typography",
    "radio",
    "boardgames",
    "fermentation",
    "lighthouses",
    "moss",
)

SITES = (
    ("news.example.com", "The Morning Harbour", "Ferry service to the islands resumes on Monday"),
    ("video.example.net", "Slow Television", "Nine hours on a night train, unedited"),
    ("blog.example.org", "Notes from the Shed", "How I mended a radio with a paper clip"),
    ("en.wikipedia.org", "Wikipedia", "List of lighthouses"),
    ("github.com", "GitHub", "A small tool that counts birds"),
    ("www.openstreetmap.org", "OpenStreetMap", "The footpath along the canal"),
    ("archive.org", "Internet Archive", "Field recordings, 1962"),
    ("recipes.example.com", "Kitchen Table", "Sourdough for people with little time"),
    ("tickets.example.net", "Town Hall", "Chamber music on Thursday"),
    ("science.example.org", "Letters on Lichens", "Slow growth, measured over forty years"),
    ("sports.example.com", "Final Whistle", "Two goals in extra time"),
    ("jornal.example.com", "O Jornal da Praça", "A feira volta no domingo"),
    ("shinbun.example.jp", "港の新聞", "星空観察会のお知らせ"),
)

ALT_TEXTS = (
    "A grey cat asleep on an open atlas",
    "Fog over a harbour, two small boats in front",
    "Watercolour of a row of yellow houses",
    "A loaf of bread cut in half, steam rising",
    "夕焼けの川と鉄橋",
    "Um campo de girassóis visto de cima",
    "Screenshot of a weather map with a front moving east",
    "Ein rotes Fahrrad lehnt an einer Mauer",
    "",
)

NAMES = (
    ("Mina", "mina"),
    ("Jonas", "jonas"),
    ("さくら", "sakura"),
    ("Beatriz", "beatriz"),
    ("Kwame", "kwame"),
    ("Élodie", "elodie"),
    ("지우", "jiwoo"),
    ("Omar", "omar"),
    ("Ingrid", "ingrid"),
    ("Tomás", "tomas"),
    ("Aylin", "aylin"),
    ("Oksana", "oksana"),
    ("Priya", "priya"),
    ("Ruben", "ruben"),
    ("Hana", "hana"),
    ("Noor", "noor"),
)

BIOS = (
    "Paints boats. Bakes bread.\nOpinions are the cat's.",
    "読書と散歩と珈琲",
    "Librarian by day, lichens by night",
    "Fotografo o que encontro na rua",
    "Fährt Rad und schreibt darüber",
    "she/her · maps, moss and music ✨",
)

LIST_NAMES = ("Bird people", "Local news", "Illustrators", "Trains and trams", "Do not disturb", "Poets")

SELF_LABELS = ("nudity", "graphic-media", "sexual", "!no-unauthenticated")

TRACKS = (
    ("Night Ferry", "The Paper Lanterns", "Tidal Tables"),
    ("Moss", "Ada Quill", "Slow Growth"),
    ("Linha Azul", "Os Bondes", "Estação Central"),
    ("雨の駅", "港町三重奏", "始発"),
    ("Fünf vor zwölf", "Kleine Uhren", "Zeitumstellung"),
    ("Lighthouse Keeper", "Northern Static", "Shortwave"),
)
